"""The head of a training: what it reads of the hidden states, and whether it has a dense layer."""

from __future__ import annotations

from dataclasses import replace

from bitfit_export.base_model.loading import BaseModel
from bitfit_export.delta import TOKEN_PROBLEMS, TOKENS
from bitfit_export.errors import UsageError
from bitfit_export.training.settings import AUTO, LINEAR, TrainingSettings

__all__ = ["choose_head", "class_pooling", "describe_head", "with_pooling"]


def choose_head(base: BaseModel, problem_type: str, settings: TrainingSettings) -> tuple[str, str | None]:
    """Pooling and activation of the head.

    Where the settings leave the pooling open it is the model's own, see `find_own_pooling`, and else that of
    `default_head`. A pooling that is not the family's own gets one linear layer, unless an activation is asked for.

    Raises:
        UsageError: a token or span task that is to read anything but each token, with anything but a linear layer, or
            another task that is to read tokens.
    """
    from bitfit_export.reference.task_model import default_head

    pooling, activation = settings.pooling, settings.activation
    if problem_type in TOKEN_PROBLEMS:
        if pooling not in (AUTO, TOKENS) or activation not in (AUTO, LINEAR):
            raise UsageError(
                f"--pooling {pooling} --activation {activation} for a {problem_type} task, whose head is one linear "
                "layer on every token",
                hint="leave both out",
            )
        return TOKENS, None
    if pooling == TOKENS:
        raise UsageError(f"--pooling {TOKENS} for a {problem_type} task, expected one vector per text")
    usual_pooling, usual_activation = default_head(base.module)
    if pooling == AUTO:
        pooling = base.own_pooling.pooling or usual_pooling
    if activation == AUTO:
        return pooling, usual_activation if pooling == usual_pooling else None
    return pooling, None if activation == LINEAR else activation


def class_pooling(base: BaseModel, problem_type: str) -> str:
    """The pooling of transformers' own class for the model and the kind of task."""
    from bitfit_export.reference.task_model import default_head

    return TOKENS if problem_type in TOKEN_PROBLEMS else default_head(base.module)[0]


def describe_head(base: BaseModel, problem_type: str, settings: TrainingSettings) -> str:
    """The head in one line for people, with the reason for a pooling that was left open."""
    pooling, activation = choose_head(base, problem_type, settings)
    layers = f"a dense layer with {activation}, then a linear one" if activation else "one linear layer"
    if settings.pooling != AUTO:
        reason = "as asked for"
    elif problem_type in TOKEN_PROBLEMS:
        reason = f"as every {problem_type} task"
    elif base.own_pooling.pooling:
        reason = base.own_pooling.reason
    else:
        reason = f"that of transformers' class; {base.own_pooling.reason}"
    return f"pooling {pooling} ({reason}), {layers}"


def with_pooling(base: BaseModel, problem_type: str, settings: TrainingSettings) -> TrainingSettings:
    """The settings with the pooling that a training with them has."""
    return replace(settings, pooling=choose_head(base, problem_type, settings)[0])
