"""What the matrix products of a graph read: how large each channel is, how channels go together, and some examples.

Requires: a graph whose biases are still constants (before lift), of a base model that reads text.
Ensures: changes nothing. The same model, tasks and texts give the same figures.
Does not: need data of any task. It runs the graph with the biases of each task in turn, on the user's texts or on those
of `sample_texts.py` and random words of the vocabulary: what makes a channel large is in the model, and most of all
what it does with the special tokens that its tokenizer adds. Padding is left out.
"""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import onnxruntime as ort
from onnx import TensorProto, helper

from bitfit_export.base_model.loading import BaseModel
from bitfit_export.compiler.calibration.sample_texts import SAMPLE_PAIRS, SAMPLE_TEXTS
from bitfit_export.compiler.compilation import Compilation, Fact, Pass, TextParts
from bitfit_export.compiler.graph.model_files import save_model
from bitfit_export.compiler.graph.weights import products_of_weights

__all__ = [
    "ActivationStats",
    "CollectActivationStats",
    "collect_activation_stats",
    "sample_batches",
    "together",
    "tokens_of",
]

_BATCH, _TOKENS = 8, 48
#: Texts of the user may be longer than ours.
_TOKENS_OF_USERS = 128
#: They show what rare words do.
_RANDOM_TEXTS = 16
#: Tokens that a product's examples hold at most, spread over all batches of all tasks.
_EXAMPLES = 1024
_SEED = 0
#: The least root mean square of a token that is divided by it.
_SMALLEST = 1e-6
_ERRORS_ONLY = 3


@dataclass(frozen=True, eq=False)
class ActivationStats:
    """What one matrix product x @ W read.

    Attributes:
        lowest, highest: float32 [k], the least and the greatest x of each channel.
        gram: float32 [k, k], the sum of x x^T over all tokens, each x first divided by its root mean square: a model
            normalises what it makes of a token, so tokens count alike, be they large or not.
        examples: float32 [tokens, k], some of the x.
        typical: whether the texts are the user's, and show what will come; sample texts show less.
    """

    lowest: np.ndarray
    highest: np.ndarray
    gram: np.ndarray
    examples: np.ndarray
    typical: bool = False

    @property
    def largest(self) -> np.ndarray:
        """float32 [k], the largest |x| of each channel."""
        largest: np.ndarray = np.maximum(np.abs(self.lowest), np.abs(self.highest))
        return largest


class CollectActivationStats(Pass):
    """Run the traced graph with the biases of each task, and keep what its products with weights read."""

    name = "collect_activation_stats"
    requires = frozenset({Fact.TRACED, Fact.FOLD_PLAN})
    ensures = frozenset({Fact.STATISTICS})

    def run(self, compilation: Compilation) -> bool:
        base = compilation.base
        tasks = [base.biases, *(delta.merge(base.biases) for delta in compilation.deltas.values())]
        folded = [compilation.fold.apply(biases).biases for biases in tasks]
        compilation.statistics = collect_activation_stats(compilation.graph, base, folded, compilation.texts)
        return False


def collect_activation_stats(
    graph: gs.Graph,
    base: BaseModel,
    tasks: Sequence[Mapping[str, np.ndarray]],
    texts: Sequence[TextParts] = (),
) -> dict[str, ActivationStats]:
    """Run the graph on some texts, and look at what its products with constant matrices read.

    Args:
        tasks: for each task, the values of the bias terms that are in the graph, folded as the graph is.
        texts: what to run it on; by default sample texts.

    Returns:
        by the names of the MatMul nodes, of which some may share one object; empty for a model that reads no text.
    """
    if base.modality != "text":
        return {}
    reads = {node.name: node.inputs[0].name for _, nodes in products_of_weights(graph) for node in nodes}
    names = [name for name in tasks[0] if name in graph.tensors()]
    batches = list(sample_batches(base, texts))
    examples = max(1, _EXAMPLES // (len(batches) * len(tasks)))
    found: dict[str, ActivationStats] = {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "observed.onnx")
        save_model(_observed(gs.export_onnx(graph), sorted(set(reads.values())), names), path)
        feeds = (
            {name: biases[name].astype(np.float32) for name in names} | batch for biases in tasks for batch in batches
        )
        for name, tokens in _read(path, feeds):
            now = _stats_of(tokens, examples, typical=bool(texts))
            found[name] = together([found[name], now]) if name in found else now
    return {name: found[read] for name, read in reads.items()}


def together(parts: Sequence[ActivationStats]) -> ActivationStats:
    """What was read in several parts."""
    return ActivationStats(
        functools.reduce(np.minimum, [part.lowest for part in parts]),
        functools.reduce(np.maximum, [part.highest for part in parts]),
        functools.reduce(np.add, [part.gram for part in parts]),
        np.concatenate([part.examples for part in parts]),
        all(part.typical for part in parts),
    )


def _observed(model: onnx.ModelProto, outputs: list[str], biases: list[str]) -> onnx.ModelProto:
    """The model with these tensors as its outputs, and with its biases as inputs."""
    del model.graph.output[:]
    model.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs)
    shapes = {each.name: list(each.dims) for each in model.graph.initializer}
    model.graph.input.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, shapes[name]) for name in biases)
    return model


def _read(path: Path, feeds: Iterable[Mapping[str, np.ndarray]]) -> Iterator[tuple[str, np.ndarray]]:
    """Each output of the model for each batch, as [tokens, k]."""
    options = ort.SessionOptions()
    options.log_severity_level = _ERRORS_ONLY
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    for batch in feeds:
        kept = batch["attention_mask"].astype(bool) if "attention_mask" in batch else None
        for name, values in zip(names, session.run(names, batch), strict=True):
            yield name, tokens_of(values, kept)


def sample_batches(base: BaseModel, texts: Sequence[TextParts] = ()) -> Iterator[dict[str, np.ndarray]]:
    """Texts and pairs as the tokenizer encodes them, special tokens and padding included.

    Args:
        texts: by default sample texts, and random words.
    """
    tokenizer = base.tokenizer
    longest = min(_TOKENS_OF_USERS if texts else _TOKENS, base.max_positions)
    if not texts:
        random = np.random.default_rng(_SEED).integers(0, len(tokenizer), (_RANDOM_TEXTS, longest))
        words = tokenizer.batch_decode(random, skip_special_tokens=True)
        texts = [*((text,) for text in (*SAMPLE_TEXTS, *words)), *SAMPLE_PAIRS]
    # A tokenizer takes texts or pairs, and texts of one length need the least padding.
    for parts in (1, 2):
        chosen = sorted((text for text in texts if len(text) == parts), key=lambda text: sum(map(len, text)))
        for start in range(0, len(chosen), _BATCH):
            columns = [list(column) for column in zip(*chosen[start : start + _BATCH], strict=True)]
            encoded = tokenizer(*columns, truncation=True, max_length=longest, padding=True, return_tensors="np")
            yield {name: np.asarray(encoded[name], np.int64) for name in base.input_names}


def tokens_of(values: np.ndarray, kept: np.ndarray | None) -> np.ndarray:
    """[tokens, k], without the padding where the first two dimensions are batch and sequence."""
    if kept is not None and values.ndim == 3 and values.shape[:2] == kept.shape:
        values = values[kept]
    return values.reshape(-1, values.shape[-1])


def _stats_of(tokens: np.ndarray, examples: int, *, typical: bool) -> ActivationStats:
    chosen = np.linspace(0, len(tokens) - 1, min(examples, len(tokens))).astype(int)
    alike = tokens / np.maximum(np.sqrt(np.square(tokens).mean(axis=1, keepdims=True)), _SMALLEST)
    return ActivationStats(tokens.min(axis=0), tokens.max(axis=0), alike.T @ alike, tokens[chosen], typical)
