"""The model card of a task delta, in the form that the Hugging Face Hub reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bitfit_export.base_model.source import model_argument
from bitfit_export.delta import DeltaConfig, TaskDelta
from bitfit_export.training.stored_names import from_stored

__all__ = ["ComparedRun", "render_card"]


@dataclass(frozen=True)
class ComparedRun:
    """A line of the card's table: what was trained, its settings, and the metrics on the same validation set."""

    name: str
    trained: int
    pooling: str
    learning_rate: float
    best_epoch: int
    metrics: dict[str, float]


def render_card(delta: TaskDelta, model: str, runs: Sequence[ComparedRun] = (), notes: str = "") -> str:
    """The card's Markdown.

    Args:
        model: the base model's short name.
        runs: other trainings to stand beside this one.
        notes: paragraphs for what a reader should know besides.
    """
    config = delta.config
    added = " --add-biases" if config.training.get("added_biases") else ""
    parts = [
        _front_matter(config),
        f"# {config.task} on {model_argument(model)}\n",
        f"A BitFit task delta: the changes of {len(config.bias_terms)} bias terms "
        f"({sum(value.size for value in delta.biases.values()):,} values) of `{config.base_model}`, and a head that "
        f"reads its {_POOLING_TEXT[config.pooling]}. All other weights are the base model's.\n",
        _results(config),
        _comparison(runs, config),
        notes,
        _settings(config),
        "## Use\n\n"
        f"```\nbitfit-export --model {model_argument(model)}{added} --tasks {config.task}\n"
        f"bitfit run bundles/{model} --task {config.task} --text ...\n```\n",
    ]
    return "\n".join(part for part in parts if part)


_POOLING_TEXT = {
    "pooler": "pooler's output",
    "cls": "first token",
    "mean": "mean over the tokens",
    "last": "last token",
    "tokens": "tokens one by one",
}
#: The Hub's names for kinds of tasks; any other is a text classification.
_PIPELINES = {"token": "token-classification", "span": "question-answering"}


def _front_matter(config: DeltaConfig) -> str:
    return (
        "---\n"
        f"base_model: {config.base_model}\n"
        "base_model_relation: adapter\n"
        "library_name: bitfit-export\n"
        f"pipeline_tag: {_PIPELINES.get(config.problem_type, 'text-classification')}\n"
        "tags:\n- bitfit\n"
        "---\n"
    )


def _results(config: DeltaConfig) -> str:
    examples = from_stored(config.training).get("validation_examples", "all")
    lines = [f"| {name} | {value:.4f} |" for name, value in config.metrics.items()]
    return "\n".join(
        [
            f"On the validation set ({examples} examples), in float32:\n",
            "| metric | value |",
            "| --- | --- |",
            *lines,
            "",
        ]
    )


def _comparison(runs: Sequence[ComparedRun], config: DeltaConfig) -> str:
    if not runs:
        return ""
    names = list(config.metrics)
    lines = [
        f"| {run.name} | {run.trained:,} | {run.pooling} | {run.learning_rate:g} | {run.best_epoch} | "
        + " | ".join(f"{run.metrics[name]:.4f}" for name in names)
        + " |"
        for run in runs
    ]
    return "\n".join(
        [
            "## What BitFit bought\n",
            "The same data and batch size; the best epoch by the first metric.\n",
            "| trained | values | pooling | learning rate | best epoch | " + " | ".join(names) + " |",
            "| --- | --- | --- | --- | --- |" + " --- |" * len(names),
            *lines,
            "",
        ]
    )


def _settings(config: DeltaConfig) -> str:
    record = from_stored(config.training)
    plain = {name: value for name, value in record.items() if not isinstance(value, dict)}
    plain["bias_terms"] = ", ".join(record.get("bias_terms", ())) or "all"
    if "added_biases" in record:
        plain["added_biases"] = ", ".join(record["added_biases"])
    plain |= {"method": config.method, "pooling": config.pooling, "base_digest": config.base_digest}
    versions = ", ".join(f"{name} {value}" for name, value in record.get("versions", {}).items())
    lines = [f"| {name} | {value} |" for name, value in sorted(plain.items())]
    return "\n".join(
        ["## Training\n", "| setting | value |", "| --- | --- |", *lines, "", f"Versions: {versions}.", ""]
    )
