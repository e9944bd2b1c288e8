"""What the matrix products of a graph read: which of their channels are large, and how these go together.

Requires: a graph whose biases are still constants (before lift), of a base model that reads text.
Ensures: changes nothing. The same model gives the same figures.
Does not: need data of any task. It reads the texts of `sample_texts.py` and random words of the vocabulary: what
makes a channel large is in the model, and most of all what it does with the special tokens that its tokenizer adds.
"""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

from bitfit_export.base_model.loading import BaseModel
from bitfit_export.compiler.calibration.sample_texts import SAMPLE_TEXTS
from bitfit_export.compiler.compilation import Compilation, Fact, Pass
from bitfit_export.compiler.graph.model_files import save_model
from bitfit_export.compiler.graph.weights import products_of_weights

__all__ = ["ActivationStats", "CollectActivationStats", "collect_activation_stats", "sample_batches"]

_BATCH, _TOKENS = 8, 48
#: They show what rare words do.
_RANDOM_TEXTS = 16
_SEED = 0
_ERRORS_ONLY = 3


@dataclass(frozen=True, eq=False)
class ActivationStats:
    """What one matrix product x @ W read.

    Attributes:
        largest: float32 [k], the largest |x| of each channel.
        gram: float64 [k, k], the sum of x x^T over all tokens; None where it was not asked for.
    """

    largest: np.ndarray
    gram: np.ndarray | None = None


class CollectActivationStats(Pass):
    """Run the traced graph on sample texts, and keep what its products with weights read.

    Args:
        gram: sum up products of channels too, as rounding to int4 needs them.
    """

    name = "collect_activation_stats"
    requires = frozenset({Fact.TRACED, Fact.FOLD_PLAN})
    ensures = frozenset({Fact.STATISTICS})

    def __init__(self, *, gram: bool = False) -> None:
        self._gram = gram

    def run(self, compilation: Compilation) -> bool:
        folded = compilation.fold.apply(compilation.base.biases).biases
        compilation.statistics = collect_activation_stats(compilation.graph, compilation.base, folded, gram=self._gram)
        return False


def collect_activation_stats(
    graph: gs.Graph, base: BaseModel, biases: Mapping[str, np.ndarray], *, gram: bool = False
) -> dict[str, ActivationStats]:
    """Run the graph on some texts, and look at what its products with constant matrices read.

    Args:
        biases: the values of the bias terms that are in the graph, folded as the graph is.
        gram: sum up products of channels too.

    Returns:
        by the names of the MatMul nodes; empty for a model that reads no text.
    """
    if base.modality != "text":
        return {}
    products = [nodes for _, nodes in products_of_weights(graph)]
    reads = {node.name: node.inputs[0].name for nodes in products for node in nodes}
    model = _with_outputs(gs.export_onnx(graph), sorted(set(reads.values())), biases)
    found: dict[str, ActivationStats] = {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "observed.onnx")
        save_model(model, path)
        options = ort.SessionOptions()
        options.log_severity_level = _ERRORS_ONLY
        session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        names = [output.name for output in session.get_outputs()]
        for feeds in sample_batches(base):
            kept = feeds["attention_mask"].astype(bool) if "attention_mask" in feeds else None
            for name, values in zip(names, session.run(names, feeds), strict=True):
                found[name] = _add(found.get(name), _rows(values, kept), gram=gram)
    # A matrix that layers share must serve all of them.
    shared = [(nodes, _together([found[reads[node.name]] for node in nodes])) for nodes in products]
    return {node.name: together for nodes, together in shared for node in nodes}


def _with_outputs(model: onnx.ModelProto, names: list[str], biases: Mapping[str, np.ndarray]) -> onnx.ModelProto:
    """The model with these tensors as its outputs, and with these values of its biases."""
    del model.graph.output[:]
    model.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names)
    for initializer in model.graph.initializer:
        if initializer.name in biases:
            values = biases[initializer.name].astype(np.float32)
            initializer.CopyFrom(numpy_helper.from_array(values, initializer.name))
    return model


def sample_batches(base: BaseModel) -> Iterator[dict[str, np.ndarray]]:
    """Texts as the tokenizer encodes them, special tokens and padding included: real ones, and random words."""
    tokenizer, longest = base.tokenizer, min(_TOKENS, base.max_positions)
    random = np.random.default_rng(_SEED).integers(0, len(tokenizer), (_RANDOM_TEXTS, longest))
    texts = [*SAMPLE_TEXTS, *tokenizer.batch_decode(random, skip_special_tokens=True)]
    for start in range(0, len(texts), _BATCH):
        chosen = texts[start : start + _BATCH]
        encoded = tokenizer(chosen, truncation=True, max_length=longest, padding=True, return_tensors="np")
        yield {name: np.asarray(encoded[name], np.int64) for name in base.input_names}


def _rows(values: np.ndarray, kept: np.ndarray | None) -> np.ndarray:
    """[tokens, k], without the padding where the first two dimensions are batch and sequence."""
    if kept is not None and values.ndim == 3 and values.shape[:2] == kept.shape:
        values = values[kept]
    return values.reshape(-1, values.shape[-1])


def _add(before: ActivationStats | None, rows: np.ndarray, *, gram: bool) -> ActivationStats:
    largest = np.abs(rows).max(axis=0)
    products = rows.T.astype(np.float64) @ rows if gram else None
    now = ActivationStats(largest, products)
    return now if before is None else _together([before, now])


def _together(parts: Sequence[ActivationStats]) -> ActivationStats:
    """What was read in several parts."""
    grams = [part.gram for part in parts if part.gram is not None]
    largest = functools.reduce(np.maximum, [part.largest for part in parts])
    return ActivationStats(largest, functools.reduce(np.add, grams) if grams else None)
