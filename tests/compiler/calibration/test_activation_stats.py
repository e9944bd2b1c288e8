"""What matrix products read, compared with what PyTorch's linear layers read."""

from __future__ import annotations

import numpy as np
import pytest
import torch

gs = pytest.importorskip("onnx_graphsurgeon", reason="needs bitfit-export[export]")

from bitfit_export.base_model.loading import BaseModel  # noqa: E402
from bitfit_export.compiler.calibration import activation_stats  # noqa: E402
from tests.traces import traced  # noqa: E402


def read_by_pytorch(base: BaseModel) -> list[np.ndarray]:
    """The inputs [tokens, k] of every linear layer over all tokens of the texts that are observed, in their order."""
    found: dict[str, list[np.ndarray]] = {}
    kept = torch.empty(0)
    hooks = [
        module.register_forward_pre_hook(
            lambda module, inputs, name=name: found.setdefault(name, []).append(inputs[0][kept].numpy())
        )
        for name, module in base.module.named_modules()
        if isinstance(module, torch.nn.Linear) and not name.startswith("pooler")
    ]
    with torch.inference_mode():
        for feeds in activation_stats.sample_batches(base):
            kept = torch.from_numpy(feeds["attention_mask"]).bool()
            base.module(**{name: torch.from_numpy(value) for name, value in feeds.items()})
    for hook in hooks:
        hook.remove()
    return [np.concatenate(rows) for rows in found.values()]


def test_it_sees_what_the_linear_layers_of_pytorch_read(tiny_base: BaseModel) -> None:
    graph = gs.import_onnx(traced(tiny_base))
    found = list(activation_stats.collect_activation_stats(graph, tiny_base, [tiny_base.biases]).values())
    expected = read_by_pytorch(tiny_base)
    assert len(found) == len(expected)
    for observed, tokens in zip(found, expected, strict=True):
        np.testing.assert_allclose(observed.lowest, tokens.min(axis=0), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(observed.highest, tokens.max(axis=0), rtol=1e-4, atol=1e-5)
        np.testing.assert_array_equal(observed.largest, np.maximum(-observed.lowest, observed.highest))
        alike = tokens.astype(np.float64) / np.sqrt(np.square(tokens).mean(axis=1, keepdims=True))
        np.testing.assert_allclose(observed.gram, alike.T @ alike, rtol=1e-3, atol=0.1)
        # Every example is a token that was read, and none of them is padding.
        distances = np.abs(observed.examples[:, np.newaxis] - tokens[np.newaxis]).max(axis=2).min(axis=1)
        assert distances.max() < 1e-4


def test_it_runs_with_the_bias_values_that_it_is_given(tiny_base: BaseModel) -> None:
    graph = gs.import_onnx(traced(tiny_base))
    before = activation_stats.collect_activation_stats(graph, tiny_base, [tiny_base.biases])
    other = {name: value + 1 for name, value in tiny_base.biases.items()}
    after = activation_stats.collect_activation_stats(graph, tiny_base, [other])
    assert before.keys() == after.keys()
    assert any(np.abs(before[name].largest - after[name].largest).max() > 0.1 for name in before)
    both = activation_stats.collect_activation_stats(graph, tiny_base, [tiny_base.biases, other])
    for name, each in both.items():
        np.testing.assert_array_equal(each.highest, np.maximum(before[name].highest, after[name].highest))
        np.testing.assert_array_equal(each.lowest, np.minimum(before[name].lowest, after[name].lowest))


def test_it_runs_on_the_texts_that_it_is_given(tiny_base: BaseModel) -> None:
    graph = gs.import_onnx(traced(tiny_base))
    texts = [("One text.",), ("Two texts,", "as a pair.")]
    found = activation_stats.collect_activation_stats(graph, tiny_base, [tiny_base.biases], texts)
    tokens = sum(len(tiny_base.tokenizer(*text)["input_ids"]) for text in texts)
    assert all(each.typical and len(each.examples) == tokens for each in found.values())


def test_it_changes_nothing_and_sees_the_same_again(tiny_base: BaseModel) -> None:
    graph = gs.import_onnx(traced(tiny_base))
    before = gs.export_onnx(graph).SerializeToString()
    first, second = (activation_stats.collect_activation_stats(graph, tiny_base, [tiny_base.biases]) for _ in range(2))
    assert gs.export_onnx(graph).SerializeToString() == before
    assert all(np.array_equal(first[name].largest, second[name].largest) for name in first)
