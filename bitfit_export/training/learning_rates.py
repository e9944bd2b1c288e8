"""The learning rate of a training that is given none."""

from __future__ import annotations

from dataclasses import replace

from bitfit_export.base_model.loading import BaseModel
from bitfit_export.training.settings import TrainingSettings

__all__ = ["default_learning_rate", "with_learning_rate"]

#: The BitFit paper's table 6, by model type and hidden size; for RoBERTa-base it takes one rate (appendix A.2).
_BITFIT: dict[tuple[str, int], dict[str, float]] = {
    ("bert", 768): {
        "qnli": 1e-4,
        "sst2": 4e-4,
        "mnli": 1e-4,
        "cola": 7e-4,
        "mrpc": 7e-4,
        "stsb": 1e-4,
        "rte": 1e-3,
        "qqp": 4e-4,
    },
    ("bert", 1024): {
        "qnli": 7e-4,
        "sst2": 4e-4,
        "mnli": 1e-4,
        "cola": 4e-4,
        "mrpc": 1e-3,
        "stsb": 1e-4,
        "rte": 4e-4,
        "qqp": 4e-4,
    },
    ("roberta", 768): dict.fromkeys(("qnli", "sst2", "mnli", "cola", "mrpc", "stsb", "rte", "qqp"), 1e-4),
}
#: Where the paper has none: for bias terms, and what else is as few values, the rate that its table 6 has most often;
#: for whole models one of its grid; for adapters and diff pruning one of their own papers' grids.
_OTHERWISE = {
    "bitfit": 4e-4,
    "rand-uniform": 4e-4,
    "rand-row-col": 4e-4,
    "frozen": 1e-3,
    "full": 2e-5,
    "adapters": 3e-4,
    "diff-pruning": 5e-5,
}
_FULL = {("roberta", 768): 1e-5}


def default_learning_rate(method: str, task: str, model_type: str, hidden_size: int) -> float:
    """The paper's learning rate for a GLUE task on one of its models, else a rate that suits the method.

    The random baselines have BitFit's, which the paper does not say, but its code does.
    """
    model = (model_type, hidden_size)
    if method == "full":
        return _FULL.get(model, _OTHERWISE[method])
    papers = _BITFIT.get(model, {}) if method in ("bitfit", "rand-uniform", "rand-row-col") else {}
    return papers.get(task, _OTHERWISE[method])


def with_learning_rate(settings: TrainingSettings, task: str, base: BaseModel) -> TrainingSettings:
    """The settings, with the default learning rate where they have none."""
    if settings.learning_rate is not None:
        return settings
    config = base.module.config
    rate = default_learning_rate(settings.method, task, config.model_type, config.hidden_size)
    return replace(settings, learning_rate=rate)
