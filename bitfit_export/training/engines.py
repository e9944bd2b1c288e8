"""What computes a training's steps: PyTorch, or for `--engine onnxruntime` programs that the compiler makes.

The parameters, the optimiser, the checkpoints and the metrics are PyTorch's in either case. An engine takes the place
of one function of a `TrainableModel`: of the loss with its gradients where biases learn, of the body where none do.
"""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import torch
from torch.autograd.function import once_differentiable

from bitfit_export.base_model.loading import BaseModel
from bitfit_export.bundle.interface import (
    GRADIENT_PREFIX,
    HEAD_CHOICE,
    HEAD_POOLING,
    ITEM_WEIGHTS,
    LABEL_COUNTS,
    LOSS,
    PROBLEM_TYPE_IDS,
    TARGETS,
    TOKEN_TARGETS,
)
from bitfit_export.bundle.row_format import PROBLEM_CODES
from bitfit_export.compiler.frontend.dropouts import ENGINE_HINT
from bitfit_export.compiler.frontend.trace import trace_base_model
from bitfit_export.compiler.gradients.dropout import DROPOUT_SEED
from bitfit_export.compiler.graph.model_files import write_model
from bitfit_export.compiler.training_program import HeadDropout, compile_for_training
from bitfit_export.delta import DeltaConfig, TaskDelta
from bitfit_export.errors import CompileError
from bitfit_export.reference.task_model import pool
from bitfit_export.training.trainable import IGNORED, TrainableModel

__all__ = ["FrozenBody", "TrainStep", "use_onnxruntime"]

_BASE, _HEAD = "base.", "head."


def use_onnxruntime(model: TrainableModel, base: BaseModel) -> None:
    """Let ONNX Runtime compute the steps of a model whose method is prepared.

    Raises:
        CompileError: the base model cannot be traced, or its biases have no gradient in the graph.
    """
    if any(parameter.requires_grad for parameter in model.base.parameters()):
        model.train_step = TrainStep(model, base)
    else:
        model.frozen_body = FrozenBody(base)


class _Program:
    """An ONNX model, opened by ONNX Runtime with as many threads as PyTorch has."""

    def __init__(self, model: Any, *, optimise: bool) -> None:
        options = ort.SessionOptions()
        levels = ort.GraphOptimizationLevel
        options.graph_optimization_level = levels.ORT_ENABLE_ALL if optimise else levels.ORT_DISABLE_ALL
        options.intra_op_num_threads = torch.get_num_threads()
        options.enable_mem_pattern = False
        options.log_severity_level = 4
        # The weights are mapped, so the folder stays as long as the session.
        folder = tempfile.mkdtemp(prefix="bitfit-train-")
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        name, _ = write_model(model, Path(folder))
        self._session = ort.InferenceSession(str(Path(folder, name)), options, providers=["CPUExecutionProvider"])
        self.inputs = tuple(each.name for each in self._session.get_inputs())
        self.outputs = tuple(each.name for each in self._session.get_outputs())

    def run(self, outputs: list[str], feeds: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        found: list[np.ndarray] = self._session.run(outputs, {name: feeds[name] for name in self.inputs})
        return found


class FrozenBody:
    """The base model as it is, without gradients: it reads texts for a head that alone learns."""

    def __init__(self, base: BaseModel) -> None:
        self._program = _Program(trace_base_model(base), optimise=True)

    def read(self, pooling: str, inputs: Mapping[str, torch.Tensor | None]) -> torch.Tensor:
        """Returns what a head with this pooling reads, as `TaskModel.read` does."""
        feeds = {name: value.numpy() for name, value in inputs.items() if value is not None}
        found = dict(zip(self._program.outputs, self._program.run(list(self._program.outputs), feeds), strict=True))
        pooler_output = found.get("pooler_output")
        return pool(
            pooling,
            torch.from_numpy(found["last_hidden_state"]),
            None if pooler_output is None else torch.from_numpy(pooler_output),
            inputs.get("attention_mask"),
        )


class TrainStep:
    """Computes the loss of a batch, and its gradient by each trained bias term and by the head.

    Without dropout these are PyTorch's up to rounding. With it the masks are others, drawn from a seed that comes from
    PyTorch's generator.
    """

    def __init__(self, model: TrainableModel, base: BaseModel) -> None:
        self._problem_type = model.problem_type
        self._labels = model.classifier.out_features
        parameters = {_input_name(name): value for name, value in model.named_parameters()}
        self._trained = [name for name, value in parameters.items() if value.requires_grad]
        dense = model.dense_dropout.p if model.activation is not None else 0.0
        dropout = HeadDropout(dense, model.dropout.p)
        try:
            traced = trace_base_model(base, dropout=True)
            program = compile_for_training(base, _as_task(model, base), self._trained, dropout, traced)
        except CompileError as error:
            raise CompileError(error.message, hint=ENGINE_HINT) from error
        self._program = _Program(program.model, optimise=False)
        self._parameters = {name: value for name, value in parameters.items() if name in self._program.inputs}
        self._wanted = [LOSS, *(GRADIENT_PREFIX + name for name in self._trained)]
        self._choices = {
            HEAD_POOLING: np.array([each == model.pooling for each in program.poolings], np.float32),
            HEAD_CHOICE: np.array([model.activation is None, model.activation is not None], np.float32),
        }

    def loss(self, labels: torch.Tensor, inputs: Mapping[str, torch.Tensor | None]) -> torch.Tensor:
        """Returns the loss, whose backward pass gives the gradients that were computed with it."""
        learnt = [self._parameters[name] for name in self._trained]
        loss: torch.Tensor = _Loss.apply(self, labels, inputs, *learnt)  # type: ignore[no-untyped-call]
        return loss

    def run(self, labels: torch.Tensor, inputs: Mapping[str, torch.Tensor | None]) -> list[np.ndarray]:
        """Returns the loss, float32 [1], and the gradients in the order of what is trained."""
        feeds = {name: value.numpy() for name, value in inputs.items() if value is not None}
        feeds |= {name: value.detach().numpy() for name, value in self._parameters.items()}
        feeds |= self._choices | _learning(self._problem_type, self._labels, labels, feeds["input_ids"].shape[1])
        if DROPOUT_SEED in self._program.inputs:
            feeds[DROPOUT_SEED] = torch.randint(2**32, (1,)).numpy().astype(np.uint32)
        return self._program.run(self._wanted, feeds)


class _Loss(torch.autograd.Function):
    """The loss and its gradients, which are known once the loss is."""

    @staticmethod
    def forward(ctx: Any, step: TrainStep, labels: torch.Tensor, inputs: Any, *learnt: torch.Tensor) -> torch.Tensor:
        loss, *gradients = step.run(labels, inputs)
        ctx.save_for_backward(*map(torch.from_numpy, gradients))
        return torch.from_numpy(loss).view(())

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        return None, None, None, *(upstream * each for each in ctx.saved_tensors)


def _input_name(parameter: str) -> str:
    """The name that a parameter of a `TaskModel` has as an input of the program."""
    return parameter.removeprefix(_BASE) if parameter.startswith(_BASE) else _HEAD + parameter


def _as_task(model: TrainableModel, base: BaseModel) -> TaskDelta:
    """The task as the compiler takes it: the shapes of its head count, no value does."""
    head = {name: value.detach().numpy() for name, value in model.named_parameters() if not name.startswith(_BASE)}
    labels = () if model.problem_type == "regression" else tuple(map(str, range(model.classifier.out_features)))
    config = DeltaConfig(
        base_model=base.source.name,
        base_revision=base.revision,
        base_digest=base.digest,
        task="task",
        problem_type=model.problem_type,
        labels=labels,
        bias_terms=(),
        method="bitfit",
        pooling=model.pooling,
        max_length=base.max_positions,
        activation=model.activation,
    )
    return TaskDelta(config, {}, head)


def _learning(problem_type: str, labels: int, wanted: torch.Tensor, length: int) -> dict[str, np.ndarray]:
    """The inputs that say what is to be learnt, with the weights that make the loss the mean that `task_loss` is.

    Args:
        labels: the number of outputs of the head.
        wanted: the labels as `task_loss` takes them.
        length: of the padded texts.
    """
    items = len(wanted)
    targets, token_targets = torch.zeros(items, labels), torch.zeros(items, length, labels)
    count = items
    if problem_type == "token":
        token_targets[wanted != IGNORED] = _one_hot(wanted[wanted != IGNORED], labels)
        count = max(1, int((wanted != IGNORED).sum()))
    elif problem_type == "span":
        token_targets = _one_hot(wanted, length).transpose(1, 2)
    elif problem_type == "single_label":
        targets = _one_hot(wanted, labels)
    else:
        targets = wanted.float().view(items, labels)
    return {
        TARGETS: targets.numpy(),
        TOKEN_TARGETS: token_targets.numpy(),
        PROBLEM_TYPE_IDS: np.full(items, PROBLEM_CODES[problem_type], np.int64),
        LABEL_COUNTS: np.full(items, labels, np.int64),
        ITEM_WEIGHTS: np.full(items, 1 / count, np.float32),
    }


def _one_hot(numbers: torch.Tensor, classes: int) -> torch.Tensor:
    return torch.nn.functional.one_hot(numbers, classes).float()
