"""The models that benchmarks measure, and bundles of them with eight tasks.

`minilm-l6` is the packaged model with the five tasks that ship, three of them twice. `bert-base` and `bert-large` have
seeded random weights and biases at full size, as their real weights need a network: time and memory do not depend on
the values. `tiny` is a random model of two layers, to try a script.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
import transformers
from common import code_digest, say

from bitfit_export.base_model.loading import BaseModel, load_base_model
from bitfit_export.compiler import CompileOptions, compile_bundle
from bitfit_export.delta import DeltaConfig, TaskDelta
from bitfit_export.errors import BitfitError, CompileError, UsageError
from bitfit_export.files import new_folder
from bitfit_export.interop.delta_lookup import find_deltas, load_deltas

__all__ = ["MODELS", "TASKS", "Workbench", "prepare"]

TASKS = 8
_REAL = "minilm-l6"
_SHIPPED = ("sst2", "mrpc", "cola", "stsb", "rte")
_RANDOM: dict[str, dict[str, int]] = {
    "tiny": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64},
    "bert-base": {},
    "bert-large": {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096},
}
MODELS = (_REAL, *_RANDOM)
_MAX_LENGTH = 128
#: What shows that a model's weights are stored in a precision: the tensor types, one of which is there.
_WEIGHT_TYPES: dict[str, tuple[int, ...]] = {
    "fp32": (onnx.TensorProto.FLOAT,),
    "fp16": (onnx.TensorProto.FLOAT16,),
    "int8": (onnx.TensorProto.INT8, onnx.TensorProto.UINT8),
    "int8-static": (onnx.TensorProto.INT8,),
    "int4": (onnx.TensorProto.INT4, onnx.TensorProto.UINT4, onnx.TensorProto.UINT8),
}


@dataclass(frozen=True)
class Workbench:
    """A model, its tasks, and a folder in which baseline models and bundles are kept.

    Attributes:
        location: what `--model` takes.
        deltas: eight tasks. The first is the baseline models'.
        refused: bundles that the compiler would not make, so that they are not tried again.
    """

    name: str
    folder: Path
    location: str
    base: BaseModel
    deltas: Mapping[str, TaskDelta]
    refused: dict[str, BitfitError] = field(default_factory=dict)

    @property
    def task(self) -> str:
        """The baseline models' task."""
        return next(iter(self.deltas))

    @property
    def baseline_folder(self) -> Path:
        """Where baseline models are kept."""
        return self.folder / "baseline"

    def bundle(self, **options: Any) -> Path:
        """The folder of a bundle, compiled unless this code has compiled it before.

        Args:
            options: those of `CompileOptions`.

        Raises:
            UsageError, CompileError: what the compiler does not take, or takes and does not do.
        """
        unknown = options.keys() - {each.name for each in dataclasses.fields(CompileOptions)}
        if unknown:
            raise UsageError(f"the compiler has no option {', '.join(sorted(unknown))}")
        name = "_".join(f"{option}-{value}" for option, value in sorted(options.items())) or "default"
        if name in self.refused:
            raise self.refused[name]
        folder = self.folder / f"bundles-{code_digest()[:12]}" / name
        if not folder.exists():
            try:
                self._compile(folder, CompileOptions(**options))
            except BitfitError as error:
                self.refused[name] = error
                raise
        return folder

    def _compile(self, folder: Path, options: CompileOptions) -> None:
        say(f"compiling {self.name}: {folder.name}")
        with new_folder(folder) as temporary:
            compile_bundle(self.base, self.deltas, temporary, options)
            _check_precision(temporary / "model.onnx", options.precision)


def prepare(name: str, scratch: Path) -> Workbench:
    """Load a model, or make it, and its tasks' deltas."""
    folder = scratch / name
    if name == _REAL:
        base = load_base_model(name)
        return Workbench(name, folder, name, base, _real_deltas())
    if not (folder / "model").exists():
        with new_folder(folder / "model") as temporary:
            _write_random_model(name, temporary)
    base = load_base_model(str(folder / "model"))
    deltas = {task: _random_delta(base, task, seed) for seed, task in enumerate(f"task-{n}" for n in range(TASKS))}
    for task, delta in deltas.items():
        if not (folder / "deltas" / task).exists():
            delta.save(folder / "deltas" / task, card="")
    return Workbench(name, folder, str(folder / "model"), base, deltas)


def _real_deltas() -> dict[str, TaskDelta]:
    shipped = load_deltas(find_deltas(_REAL, _SHIPPED))
    again = {f"{name}-again": _renamed(delta, f"{name}-again") for name, delta in shipped.items()}
    return dict(list((shipped | again).items())[:TASKS])


def _renamed(delta: TaskDelta, task: str) -> TaskDelta:
    return dataclasses.replace(delta, config=dataclasses.replace(delta.config, task=task))


def _write_random_model(name: str, folder: Path) -> None:
    """A random BERT with the packaged model's tokenizer. No bias or norm keeps its initial value: zeros and ones."""
    tokenizer = load_base_model(_REAL).tokenizer
    torch.manual_seed(0)
    module = transformers.BertModel(transformers.BertConfig(vocab_size=len(tokenizer), **_RANDOM[name]))
    for parameter_name, parameter in module.named_parameters():
        if parameter_name.endswith(".bias"):
            torch.nn.init.normal_(parameter, std=0.1)
        elif "LayerNorm" in parameter_name:
            torch.nn.init.normal_(parameter, mean=1.0, std=0.1)
    module.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _random_delta(base: BaseModel, task: str, seed: int) -> TaskDelta:
    """A delta that changes every bias term, with a head of two labels on the pooler, as BERT has it."""
    random = np.random.default_rng(seed)
    hidden = int(base.module.config.hidden_size)
    config = DeltaConfig(
        base_model=base.source.name,
        base_revision=None,
        base_digest=base.digest,
        task=task,
        problem_type="single_label",
        labels=("no", "yes"),
        bias_terms=tuple(base.biases),
        method="bitfit",
        pooling="pooler",
        max_length=_MAX_LENGTH,
    )
    return TaskDelta(
        config,
        {name: random.normal(0, 0.1, value.shape).astype(np.float32) for name, value in base.biases.items()},
        {
            "classifier.weight": random.normal(0, 0.1, (2, hidden)).astype(np.float32),
            "classifier.bias": random.normal(0, 0.1, 2).astype(np.float32),
        },
    )


def _check_precision(path: Path, precision: str) -> None:
    """Nothing is measured under the name of a precision that the model does not have."""
    graph = onnx.load(path, load_external_data=False).graph
    types = {initializer.data_type for initializer in graph.initializer if len(initializer.dims) > 1}
    if not types & set(_WEIGHT_TYPES[precision]):
        found = ", ".join(sorted(onnx.TensorProto.DataType.Name(each) for each in types))
        raise CompileError(f"the compiled model has matrices of {found}, expected {precision}")
