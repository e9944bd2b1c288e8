"""The settings of one training run."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from bitfit_export.delta import ACTIVATIONS, POOLINGS, TOKENS
from bitfit_export.errors import UsageError

__all__ = [
    "AUTO",
    "DELTA_METHODS",
    "ENGINES",
    "FULL_LEARNING_RATES",
    "HEAD_ACTIVATIONS",
    "HEAD_POOLINGS",
    "LEARNING_RATES",
    "LINEAR",
    "MAX_EPOCHS",
    "METHODS",
    "ONNXRUNTIME",
    "ORIGINAL",
    "SCHEDULES",
    "TORCH",
    "TrainingSettings",
]

#: The learning rates among which the BitFit paper searches, for bias terms and for whole models (appendix A.2).
LEARNING_RATES = (1e-4, 4e-4, 7e-4, 1e-3)
FULL_LEARNING_RATES = (1e-5, 2e-5, 3e-5, 5e-5)
#: After this number of epochs all of the paper's trainings had converged.
MAX_EPOCHS = 20
#: What is trained besides the head; `bitfit_export.training.methods` has each of them.
METHODS = ("bitfit", "frozen", "full", "rand-uniform", "rand-row-col", "adapters", "diff-pruning")
#: Those that change nothing but bias terms and head, so that a task delta holds all of it.
DELTA_METHODS = ("bitfit", "frozen")
SCHEDULES = ("constant", "linear")
#: What computes the training steps.
TORCH, ONNXRUNTIME = "torch", "onnxruntime"
ENGINES = (TORCH, ONNXRUNTIME)
#: The model's own pooling, and else the head that transformers gives its family for the kind of task.
AUTO = "auto"
#: The activation of a head that is one linear layer.
LINEAR = "none"
HEAD_POOLINGS = (AUTO, *POOLINGS, TOKENS)
HEAD_ACTIVATIONS = (AUTO, LINEAR, *ACTIVATIONS)


@dataclass(frozen=True)
class TrainingSettings:
    """The settings of a training.

    The defaults are those of the paper's own implementation where it has one, but for the schedule: a constant rate
    falls apart on bases of twelve layers, one that rises and then falls does not.

    Attributes:
        bias_terms: which bias terms to train, see `select_bias_terms`; empty for all.
        pooling: what the head reads, one of `HEAD_POOLINGS`; see `heads.choose_head`.
        activation: of the head's dense layer, one of `HEAD_ACTIVATIONS`.
        learning_rate: of AdamW, without weight decay; None for that of `default_learning_rate`.
        warmup: share of all steps in which the learning rate rises from 0.
        max_length: the number of tokens to which texts are truncated.
        stride: tokens that neighbouring windows of a span task's context share; None for a third of `max_length`.
        bf16: training steps in bfloat16 where that is safe; biases, optimiser and evaluation stay float32.
        patience: end after this number of epochs without a better metric; None for all epochs, as the paper trains.
        adapter_size: the width of an adapter's bottleneck.
        sparsity: the share of the base's parameters that diff pruning changes.
        l0_penalty: the weight that diff pruning's loss gives to each gate that is expected to be open.
        engine: what computes the steps, one of `ENGINES`; see `training.engines`.
    """

    method: str = "bitfit"
    bias_terms: tuple[str, ...] = ()
    pooling: str = AUTO
    activation: str = AUTO
    learning_rate: float | None = None
    epochs: int = 8
    batch_size: int = 16
    schedule: str = "linear"
    warmup: float = 0.1
    seed: int = 0
    max_length: int = 128
    stride: int | None = None
    bf16: bool = False
    patience: int | None = None
    adapter_size: int = 64
    sparsity: float = 0.005
    l0_penalty: float = 1.25e-7
    engine: str = TORCH

    def __post_init__(self) -> None:
        _check_choice("--method", self.method, METHODS)
        _check_choice("--pooling", self.pooling, HEAD_POOLINGS)
        _check_choice("--activation", self.activation, HEAD_ACTIVATIONS)
        _check_choice("--schedule", self.schedule, SCHEDULES)
        _check_choice("--engine", self.engine, ENGINES)
        if self.engine == ONNXRUNTIME:
            self._check_onnxruntime()
        if self.bias_terms and self.method != "bitfit":
            raise UsageError(
                f"--bias-terms goes with --method bitfit, not with {self.method}", hint="leave one of them out"
            )
        counts = {
            "--epochs": self.epochs,
            "--batch-size": self.batch_size,
            "--patience": self.patience,
            "--adapter-size": self.adapter_size,
        }
        for name, value in counts.items():
            if value is not None and value < 1:
                raise UsageError(f"{name} is {value}, expected at least 1")
        if self.learning_rate is not None and not 0 < self.learning_rate < 1:
            raise UsageError(
                f"--learning-rate is {self.learning_rate}, expected a number between 0 and 1",
                hint="BitFit learns best between 1e-4 and 1e-3",
            )
        if not 0 <= self.warmup < 1:
            raise UsageError(f"--warmup is {self.warmup}, expected a share of the steps, 0 to below 1")
        if not 0 <= self.seed < 2**32:
            raise UsageError(f"--seed is {self.seed}, expected a number from 0 to 2**32 - 1")
        if not 0 < self.sparsity <= 1:
            raise UsageError(f"--sparsity is {self.sparsity}, expected a share of the parameters, above 0 to 1")
        if not 0 <= self.l0_penalty < 1:
            raise UsageError(f"--l0-penalty is {self.l0_penalty}, expected a number from 0 to below 1")
        if self.max_length < 3:
            raise UsageError(f"--max-length is {self.max_length}, expected at least 3 tokens")

    def _check_onnxruntime(self) -> None:
        if self.method not in DELTA_METHODS:
            raise UsageError(
                f"--engine {ONNXRUNTIME} computes no gradient of a weight, which --method {self.method} trains, "
                f"expected --method {' or '.join(DELTA_METHODS)}",
                hint=f"add --engine {TORCH}",
            )
        if self.bf16:
            raise UsageError(
                f"--bf16 goes with --engine {TORCH}, not with {ONNXRUNTIME}, which computes in float32",
                hint="leave one of them out",
            )

    def unusual(self) -> dict[str, Any]:
        """The settings that are not those of `ORIGINAL`, by field.

        The same training has the same ones in every release, whatever settings or defaults that release has.
        """
        original = asdict(ORIGINAL)
        return {name: value for name, value in asdict(self).items() if value != original[name]}


def _check_choice(option: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise UsageError(f"{option} is {value!r}, expected one of {', '.join(allowed)}")


#: What runs and trials are told apart by, see `TrainingSettings.unusual`: the first defaults, which stay what they are
#: when a default changes. Otherwise a new training would have the name of an old one, and its results. A setting that
#: is added later belongs here with the value that trains as before.
ORIGINAL = TrainingSettings(
    method="bitfit",
    bias_terms=(),
    pooling=AUTO,
    activation=AUTO,
    learning_rate=None,
    epochs=8,
    batch_size=16,
    schedule="constant",
    warmup=0.0,
    seed=0,
    max_length=128,
    stride=None,
    bf16=False,
    patience=None,
    adapter_size=64,
    sparsity=0.005,
    l0_penalty=1.25e-7,
    engine=TORCH,
)
