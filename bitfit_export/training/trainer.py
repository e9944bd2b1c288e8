"""Training: transformers' Trainer over what the method trains, and checkpoints of nothing else."""

from __future__ import annotations

import copy
import functools
import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments, set_seed
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import EvalPrediction

from bitfit_export.base_model.bias_terms import is_bias_term
from bitfit_export.base_model.loading import BaseModel
from bitfit_export.errors import BitfitError, MissingExtraError, OutputError, UsageError, first_line
from bitfit_export.reference.task_model import TaskModel
from bitfit_export.training.data import Examples, TaskData
from bitfit_export.training.features import EncodedExamples, collate, encode_examples
from bitfit_export.training.frozen_body import can_read_once, read_once
from bitfit_export.training.heads import choose_head
from bitfit_export.training.methods import Method, create_method
from bitfit_export.training.processes import is_first_process, items_per_process, together_on_cpu, wait_for_all
from bitfit_export.training.settings import ONNXRUNTIME, TrainingSettings
from bitfit_export.training.trainable import TrainableModel
from bitfit_export.training.work_folder import (
    checkpoint_folder,
    last_checkpoint,
    mark_begun,
    mark_complete,
    remove_other_checkpoints,
)

__all__ = ["TrainedModel", "bias_differences", "train_model"]

_TRAINED_FILE = "trained.safetensors"
#: That of the AdamW in the paper's own code; torch's is 1e-8. Where all of a gradient is rounding, as a key bias's is,
#: Adam's steps are as large as any once the rounding is larger than this.
_ADAM_EPSILON = 1e-6


@dataclass(frozen=True)
class TrainedModel:
    """A trained `TaskModel` and how it came about.

    Attributes:
        bias_terms: the bias terms that were trained as they are, as the bare base model names them.
        trained: how many of the base's values were trained.
        best_epoch: the epoch whose parameters the model holds, from 1.
        history: one dict of validation metrics an epoch.
    """

    model: TaskModel
    bias_terms: tuple[str, ...]
    trained: int
    best_epoch: int
    history: list[dict[str, float]]


def train_model(
    base: BaseModel,
    data: TaskData,
    settings: TrainingSettings,
    work_folder: Path,
    callbacks: Sequence[TrainerCallback] = (),
) -> TrainedModel:
    """Train a task; resume from the last complete checkpoint in `work_folder` if there is one.

    The settings must have a learning rate. The result has the parameters of the epoch with the best validation metric
    (the first, where several are equal). The same seed gives the same result on the same machine, interrupted or not.

    Raises:
        BitfitError: a parameter that should be frozen has changed: a defect, and nothing may be made of it.
    """
    if settings.max_length > base.max_positions:
        raise UsageError(
            f"--max-length is {settings.max_length}, but {base.source.name} takes at most {base.max_positions} tokens"
        )
    set_seed(settings.seed)
    spec = data.spec
    pooling, activation = choose_head(base, spec.problem_type, settings)
    model = TrainableModel(
        copy.deepcopy(base.module),
        pooling,
        max(1, len(spec.labels)),
        problem_type=spec.problem_type,
        activation=activation,
        autocast=settings.bf16,
    )
    method = create_method(settings)
    method.prepare(model)
    if settings.engine == ONNXRUNTIME:
        _use_onnxruntime(model, base)
    frozen = _frozen_digest(model)
    trainer = _make_trainer(base, data, settings, model, method, work_folder, callbacks)
    last = last_checkpoint(work_folder)
    if last is not None:
        history = _history(TrainerState.load_from_json(str(last / TRAINER_STATE_NAME)), spec.metrics[0])
        if _is_enough(history, spec.metrics[0], method, settings.patience):
            trainer.args.num_train_epochs = len(history)
    trainer.train(resume_from_checkpoint=None if last is None else str(last))
    trainer.load_best_epoch()
    if _frozen_digest(model) != frozen:
        raise BitfitError("training changed a parameter that should be frozen; nothing was written")
    bias_terms = tuple(
        name for name, parameter in model.base.named_parameters() if parameter.requires_grad and is_bias_term(name)
    )
    history = _history(trainer.state, spec.metrics[0])
    return TrainedModel(
        model.cpu().eval(),
        bias_terms,
        method.finish(model),
        _best_epoch(history, spec.metrics[0], method.first_choice),
        history,
    )


def _use_onnxruntime(model: TrainableModel, base: BaseModel) -> None:
    try:
        from bitfit_export.training.engines import use_onnxruntime
    except ImportError as error:
        raise MissingExtraError(error.name or "onnx", "export") from error
    use_onnxruntime(model, base)


def _make_trainer(
    base: BaseModel,
    data: TaskData,
    settings: TrainingSettings,
    model: TrainableModel,
    method: Method,
    work_folder: Path,
    callbacks: Sequence[TrainerCallback],
) -> _DeltaTrainer:
    spec = data.spec

    reads_once = can_read_once(model)

    def encode(examples: Examples) -> EncodedExamples:
        encoded = encode_examples(
            spec, examples, base.tokenizer, max_length=settings.max_length, stride=settings.stride
        )
        if reads_once:
            encoded.features = read_once(model, base.tokenizer, encoded.features)
        return encoded

    features = encode(data.train).features
    trainer = _DeltaTrainer(
        method,
        encode(data.validation),
        model=model,
        args=_arguments(settings, method, spec.metrics[0], len(features), work_folder),
        train_dataset=features,
        data_collator=functools.partial(collate, spec.problem_type, base.tokenizer),
    )
    for callback in list(trainer.callback_handler.callbacks):
        if type(callback).__name__ in ("PrinterCallback", "ProgressCallback"):
            trainer.remove_callback(callback)
    for callback in (_Epochs(method, settings.patience, spec.metrics[0]), *callbacks):
        trainer.add_callback(callback)
    return trainer


def _arguments(
    settings: TrainingSettings, method: Method, metric: str, examples: int, work_folder: Path
) -> TrainingArguments:
    assert settings.learning_rate is not None
    steps = -(-examples // settings.batch_size) * settings.epochs
    arguments = TrainingArguments(
        output_dir=str(work_folder),
        use_cpu=together_on_cpu() or settings.engine == ONNXRUNTIME,
        num_train_epochs=settings.epochs,
        per_device_train_batch_size=items_per_process(settings.batch_size),
        per_device_eval_batch_size=64,
        learning_rate=settings.learning_rate,
        lr_scheduler_type="constant_with_warmup" if settings.schedule == "constant" else "linear",
        warmup_steps=round(settings.warmup * steps),
        weight_decay=0.0,
        adam_epsilon=_ADAM_EPSILON,
        # Over a whole model the fused step is the faster one; over biases there is no difference.
        optim="adamw_torch_fused" if method.dense else "adamw_torch",
        train_sampling_strategy="group_by_length",
        eval_strategy="epoch",
        save_strategy="epoch",
        logging_strategy="epoch",
        metric_for_best_model=metric,
        greater_is_better=True,
        seed=settings.seed,
        report_to="none",
        remove_unused_columns=False,
        label_names=["labels"],
        dataloader_pin_memory=False,
        disable_tqdm=True,
    )
    # Each of several GPUs of one process would be given a whole batch; several processes share a batch out.
    arguments._n_gpu = min(1, arguments.n_gpu)
    return arguments


class _Epochs(TrainerCallback):
    """The callback for the start and the end of an epoch. It has no state, so a run that resumes does the same."""

    def __init__(self, method: Method, patience: int | None, metric: str) -> None:
        self._method = method
        self._patience = patience
        self._metric = metric

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **others: Any
    ) -> None:
        self._method.begin_epoch(round(state.epoch or 0) + 1)

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **others: Any) -> None:
        history = _history(state, self._metric)
        control.should_training_stop |= _is_enough(history, self._metric, self._method, self._patience)


class _DeltaTrainer(Trainer):
    """A Trainer whose checkpoints hold the trained parameters alone, and are marked when they are whole.

    It judges by what an example's problem type is judged by, after each epoch, over all examples of `validation`.
    """

    def __init__(self, method: Method, validation: EncodedExamples, **options: Any) -> None:
        super().__init__(eval_dataset=validation.features, compute_metrics=self._score, **options)
        self._method = method
        self._validation = validation
        self._order: list[int] = []

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        if self.optimizer is None:
            kind, options = self.get_optimizer_cls_and_kwargs(self.args)
            options["weight_decay"] = self.args.weight_decay
            self.optimizer: torch.optim.Optimizer | None = kind(self._method.parameter_groups(self.model), **options)
        assert self.optimizer is not None
        return self.optimizer

    def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, **others: Any) -> Any:
        found = super().compute_loss(model, inputs, return_outputs, **others)
        penalty = self._method.penalty() if self.model.training else None
        if penalty is None:
            return found
        return (found[0] + penalty, found[1]) if return_outputs else found + penalty

    def _determine_best_metric(self, metrics: dict[str, float], trial: Any) -> bool:
        may_be_best = round(self.state.epoch) >= self._method.first_choice
        return may_be_best and bool(super()._determine_best_metric(metrics, trial))

    def _get_eval_sampler(self, eval_dataset: Any) -> list[int]:
        # Examples of about one length are evaluated together too, so the logits come in another order.
        self._order = list(super()._get_eval_sampler(eval_dataset))
        return self._order

    def _score(self, outcome: EvalPrediction) -> dict[str, float]:
        logits: list[np.ndarray] = [np.empty(0)] * len(self._order)
        for index, values in zip(self._order, outcome.predictions, strict=True):
            logits[index] = values
        return self._validation.score(logits)

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        folder = output_dir or self.args.output_dir
        os.makedirs(folder, exist_ok=True)
        chosen = {name: value.detach() for name, value in self.model.named_parameters() if value.requires_grad}
        save_file(chosen, os.path.join(folder, _TRAINED_FILE))

    def _save_checkpoint(self, model: torch.nn.Module, trial: Any) -> None:
        work_folder, step = Path(self.args.output_dir), self.state.global_step
        try:
            if is_first_process():
                mark_begun(work_folder, step)
            wait_for_all()
            super()._save_checkpoint(model, trial)
            wait_for_all()
            if is_first_process():
                mark_complete(work_folder, step)
                remove_other_checkpoints(work_folder, {step, self.state.best_global_step})
            wait_for_all()
        except (OSError, SafetensorError, RuntimeError) as error:
            # torch reports a full disk as a RuntimeError.
            raise OutputError(
                f"the checkpoint {checkpoint_folder(work_folder, step)} could not be written: {first_line(error)}",
                hint="free some space and give the same command again; it resumes after the last complete checkpoint",
            ) from error

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: torch.nn.Module | None = None) -> None:
        state = load_file(os.path.join(resume_from_checkpoint, _TRAINED_FILE))
        parameters = dict(self.model.named_parameters())
        with torch.no_grad():
            for name, value in state.items():
                parameters[name].copy_(value)

    def load_best_epoch(self) -> None:
        """Take the parameters of the best epoch: by its step, since the path in the state is another one once the work
        folder has moved.
        """
        self._load_from_checkpoint(str(checkpoint_folder(Path(self.args.output_dir), self.state.best_global_step)))


def _history(state: TrainerState, metric: str) -> list[dict[str, float]]:
    """The validation metrics of each epoch."""
    return [_metrics_of(entry) for entry in state.log_history if f"eval_{metric}" in entry]


def _best_epoch(history: list[dict[str, float]], metric: str, first: int) -> int:
    """The epoch with the best metric from `first` on, the first one where several are equal; all from 1."""
    return max(range(first, len(history) + 1), key=lambda epoch: history[epoch - 1][metric])


def _is_enough(history: list[dict[str, float]], metric: str, method: Method, patience: int | None) -> bool:
    """Returns whether this number of epochs has gone by without a better metric."""
    first = method.first_choice
    if patience is None or len(history) < first:
        return False
    return len(history) - _best_epoch(history, metric, first) >= patience


def _metrics_of(entry: dict[str, Any]) -> dict[str, float]:
    skip = ("runtime", "samples_per_second", "steps_per_second")
    found = {name.removeprefix("eval_"): value for name, value in entry.items() if name.startswith("eval_")}
    return {name: float(value) for name, value in found.items() if name not in skip}


def _frozen_digest(model: TaskModel) -> str:
    """SHA-256 over every parameter and buffer that is not trained."""
    digest = hashlib.sha256()
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    tensors = dict(model.named_parameters(remove_duplicate=False)) | dict(model.named_buffers())
    for name, value in sorted(tensors.items()):
        if name not in trained:
            digest.update(name.encode())
            digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def bias_differences(base: BaseModel, trained: TrainedModel) -> dict[str, np.ndarray]:
    """b_F - b_0 in float32 for each trained bias term."""
    state = trained.model.base.state_dict()
    return {name: state[name].detach().numpy() - base.biases[name] for name in trained.bias_terms}
