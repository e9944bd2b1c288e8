"""Graphs of base models, compared with PyTorch on masks of every kind."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx_graphsurgeon as gs
import onnxruntime as ort
import torch

from bitfit_export.base_model.loading import BaseModel

__all__ = ["assert_pytorchs", "batch", "run"]

LENGTHS = (1, 9, 40)
TOLERANCE = 2e-5


def assert_pytorchs(graph: gs.Graph, base: BaseModel) -> None:
    """The hidden states of every token that a mask keeps are those of PyTorch, at several lengths."""
    for length in LENGTHS:
        feeds = batch(length)
        kept = feeds["attention_mask"].astype(bool)
        np.testing.assert_allclose(run(graph, feeds)[kept], in_pytorch(base, feeds)[kept], atol=TOLERANCE)


def run(graph: gs.Graph, feeds: dict[str, np.ndarray]) -> np.ndarray:
    session = ort.InferenceSession(gs.export_onnx(graph).SerializeToString(), providers=["CPUExecutionProvider"])
    names = {each.name for each in session.get_inputs()}
    return session.run(["last_hidden_state"], {name: value for name, value in feeds.items() if name in names})[0]


def masks(length: int) -> Iterator[tuple[str, list[int]]]:
    """A mask of every kind, by its name."""
    half = length // 2
    yield "full", [1] * length
    yield "right padding", [1] * half + [0] * (length - half)
    yield "left padding", [0] * half + [1] * (length - half)
    yield "holes", [1, 0] * half + [1] * (length % 2)
    yield "one token", [1] + [0] * (length - 1)


def batch(length: int) -> dict[str, np.ndarray]:
    mask = np.array([mask for _, mask in masks(length)], np.int64)
    ids = np.random.default_rng(length).integers(1000, 2000, mask.shape)
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}


def in_pytorch(base: BaseModel, feeds: dict[str, np.ndarray]) -> np.ndarray:
    with torch.inference_mode():
        inputs = {name: torch.from_numpy(feeds[name]) for name in base.input_names}
        return base.module(**inputs).last_hidden_state.numpy()
