"""Training changes the bias terms and the head, nothing else; it repeats itself exactly, interrupted or not."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from bitfit_export.base_model.loading import BaseModel
from bitfit_export.delta import TaskDelta
from bitfit_export.errors import BitfitError, UsageError
from bitfit_export.reference.task_model import TaskModel, merged_model, predict_logits
from bitfit_export.training import TrainingSettings, evaluate, train_task
from bitfit_export.training.data import Examples, TaskData
from bitfit_export.training.methods import create_method
from bitfit_export.training.tasks import TaskSpec
from bitfit_export.training.trainable import TrainableModel
from bitfit_export.training.work_folder import mark_begun

pytestmark = pytest.mark.slow

QUICK = TrainingSettings(pooling="mean", learning_rate=5e-3, epochs=3, max_length=16)
#: Enough for the tiny model to learn the two moods.
LONGER = dataclasses.replace(QUICK, learning_rate=2e-2, epochs=15)
WORDS = ("good fine great lovely", "bad poor awful dreadful")


def make_data(problem_type: str = "single_label") -> TaskData:
    """Examples whose label is in their words, so that a tiny model learns something."""
    random = np.random.default_rng(0)

    def examples(count: int) -> Examples:
        labels: list[Any] = random.integers(0, 2, count).tolist()
        texts = [(f"it is {random.choice(WORDS[label].split())} " * int(random.integers(1, 3)),) for label in labels]
        return Examples(texts, labels if problem_type == "single_label" else [float(label) for label in labels])

    labels, metrics = (("good", "bad"), ("accuracy",)) if problem_type == "single_label" else ((), ("pearson",))
    spec = TaskSpec("mood", problem_type, ("sentence",), "label", labels, metrics)
    return TaskData(spec, examples(96), examples(40), "d" * 64, "made up")


@pytest.fixture(scope="module")
def data() -> TaskData:
    return make_data()


def delta_of(base: BaseModel, data: TaskData, settings: TrainingSettings, folder: Path, **options: Any) -> TaskDelta:
    delta = train_task(base, data, settings, folder, **options).delta
    assert delta is not None
    return delta


def same(one: TaskDelta, other: TaskDelta) -> bool:
    pairs = ((one.biases, other.biases), (one.head, other.head))
    return all(sorted(a) == sorted(b) and all(np.array_equal(a[name], b[name]) for name in a) for a, b in pairs)


def test_a_task_is_learnt_and_its_delta_gives_the_metric_that_it_records(
    tiny_base: BaseModel, data: TaskData, tmp_path: Path
) -> None:
    result = train_task(tiny_base, data, LONGER, tmp_path)
    assert result.delta is not None
    assert result.metrics["accuracy"] > 0.9
    assert result.metrics == result.delta.config.metrics
    # The metric again, by hand, from transformers' own tokenizer and a merged model.
    model = merged_model(tiny_base, result.delta)
    right = 0
    for (text,), label in zip(data.validation.texts, data.validation.labels, strict=True):
        batch = tiny_base.tokenizer(text, truncation=True, max_length=16, return_tensors="pt")
        right += int(model(**batch)["logits"].argmax()) == label
    assert result.metrics["accuracy"] == right / len(data.validation.labels)
    assert result.history[result.best_epoch - 1]["accuracy"] == max(each["accuracy"] for each in result.history)


def test_exactly_the_bias_terms_and_the_head_are_trained(tiny_base: BaseModel) -> None:
    model = TrainableModel(tiny_base.module, "pooler", 2)
    create_method(TrainingSettings()).prepare(model)
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert trained == {f"base.{name}" for name in tiny_base.biases} | {"classifier.weight", "classifier.bias"}
    tiny_base.module.requires_grad_(False)


def test_a_head_that_does_not_read_the_pooler_leaves_the_pooler_alone(
    tiny_base: BaseModel, data: TaskData, tmp_path: Path
) -> None:
    delta = delta_of(tiny_base, data, dataclasses.replace(QUICK, epochs=1), tmp_path)
    assert set(tiny_base.biases) - set(delta.biases) == {"pooler.dense.bias"}


def test_only_the_wanted_bias_terms_change(tiny_base: BaseModel, data: TaskData, tmp_path: Path) -> None:
    settings = dataclasses.replace(QUICK, epochs=1, bias_terms=("b_q", "intermediate"))
    delta = delta_of(tiny_base, data, settings, tmp_path)
    expected = {name for name in tiny_base.biases if "query" in name or "intermediate" in name}
    assert set(delta.biases) == expected
    assert all(np.abs(value).max() > 0 for value in delta.biases.values())


def test_a_frozen_body_gives_a_head_alone(tiny_base: BaseModel, data: TaskData, tmp_path: Path) -> None:
    delta = delta_of(tiny_base, data, dataclasses.replace(QUICK, method="frozen", epochs=1), tmp_path)
    assert delta.biases == {}
    assert delta.config.bias_terms == ()
    assert set(delta.head) == {"classifier.weight", "classifier.bias"}


def test_a_frozen_body_reads_each_example_once_and_trains_the_same_head(
    tiny_base: BaseModel, data: TaskData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = dataclasses.replace(QUICK, method="frozen", epochs=3)
    items: list[int] = []

    def count(self: TrainableModel, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        items.append(len(inputs["input_ids"]))
        return TaskModel.read(self, inputs)

    monkeypatch.setattr(TrainableModel, "read", count)
    once = delta_of(tiny_base, data, settings, tmp_path / "once")
    assert sum(items) == len(data.train) + len(data.validation)

    monkeypatch.setattr("bitfit_export.training.trainer.can_read_once", lambda model: False)
    each_time = delta_of(tiny_base, data, settings, tmp_path / "each time")
    for name, value in each_time.head.items():
        np.testing.assert_allclose(once.head[name], value, atol=1e-5)


def test_full_fine_tuning_gives_metrics_but_no_delta(tiny_base: BaseModel, data: TaskData, tmp_path: Path) -> None:
    result = train_task(tiny_base, data, dataclasses.replace(QUICK, method="full", epochs=1), tmp_path)
    assert result.delta is None
    assert 0 <= result.metrics["accuracy"] <= 1


def test_training_leaves_the_base_model_as_it_was(tiny_base: BaseModel, data: TaskData, tmp_path: Path) -> None:
    from bitfit_export.base_model.loading import state_digest

    train_task(tiny_base, data, dataclasses.replace(QUICK, epochs=1), tmp_path)
    assert state_digest(tiny_base.module.state_dict()) == tiny_base.digest


def test_a_frozen_tensor_that_changed_is_found(
    tiny_base: BaseModel, data: TaskData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = transformers.Trainer.training_step

    def meddling_step(self: transformers.Trainer, model: torch.nn.Module, *rest: Any, **named: Any) -> torch.Tensor:
        with torch.no_grad():
            model.base.embeddings.word_embeddings.weight[0, 0] += 1e-3
        return original(self, model, *rest, **named)

    monkeypatch.setattr(transformers.Trainer, "training_step", meddling_step)
    with pytest.raises(BitfitError, match="changed a parameter that should be frozen"):
        train_task(tiny_base, data, dataclasses.replace(QUICK, epochs=1), tmp_path)


def test_a_regression_is_trained_on_squared_error(tiny_base: BaseModel, tmp_path: Path) -> None:
    delta = delta_of(tiny_base, make_data("regression"), LONGER, tmp_path)
    assert delta.config.labels == ()
    assert delta.head["classifier.weight"].shape == (1, 32)
    assert delta.config.metrics["pearson"] > 0.7


def test_the_same_seed_gives_the_same_delta_and_another_one_does_not(
    tiny_base: BaseModel, data: TaskData, tmp_path: Path
) -> None:
    settings = dataclasses.replace(QUICK, epochs=1)
    first = delta_of(tiny_base, data, settings, tmp_path / "1")
    assert same(first, delta_of(tiny_base, data, settings, tmp_path / "2"))
    assert not same(first, delta_of(tiny_base, data, dataclasses.replace(settings, seed=1), tmp_path / "3"))


class StopAfter(transformers.TrainerCallback):
    """A kill after so many steps, as abrupt as a test can make it."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == self.step:
            raise KeyboardInterrupt


@pytest.mark.parametrize("step", [3, 6, 8, 15])
def test_a_killed_training_goes_on_to_the_same_delta(
    tiny_base: BaseModel, data: TaskData, tmp_path: Path, step: int
) -> None:
    """An epoch has six steps: killed in the first one, at the end of it, and in the two that follow."""
    whole = delta_of(tiny_base, data, QUICK, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train_task(tiny_base, data, QUICK, tmp_path / "killed", callbacks=[StopAfter(step)])
    assert same(whole, delta_of(tiny_base, data, QUICK, tmp_path / "killed"))


def test_the_best_epoch_is_found_where_the_work_folder_has_moved(
    tiny_base: BaseModel, data: TaskData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So small a rate changes no prediction, so the first of three epochs is the best one."""
    settings = dataclasses.replace(QUICK, learning_rate=1e-6)
    monkeypatch.chdir(tmp_path)
    result = train_task(tiny_base, data, settings, Path("work"))
    assert (len(result.history), result.best_epoch) == (3, 1)
    Path("work").rename("moved")
    again = train_task(tiny_base, data, settings, Path("moved"))
    assert result.delta is not None
    assert again.delta is not None
    assert same(result.delta, again.delta)


def test_half_a_checkpoint_is_not_trusted(tiny_base: BaseModel, data: TaskData, tmp_path: Path) -> None:
    whole = delta_of(tiny_base, data, QUICK, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train_task(tiny_base, data, QUICK, tmp_path / "killed", callbacks=[StopAfter(8)])
    half = tmp_path / "killed" / "checkpoint-12"
    mark_begun(tmp_path / "killed", 12)
    (half / "trained.safetensors").write_bytes(b"half")
    assert same(whole, delta_of(tiny_base, data, QUICK, tmp_path / "killed"))


def test_checkpoints_hold_the_trained_parameters_alone(tiny_base: BaseModel, data: TaskData, tmp_path: Path) -> None:
    from safetensors.numpy import load_file

    train_task(tiny_base, data, dataclasses.replace(QUICK, epochs=1), tmp_path)
    (checkpoint,) = tmp_path.glob("checkpoint-*")
    names = load_file(checkpoint / "trained.safetensors")
    assert all(name.endswith(".bias") or name.startswith("classifier.") for name in names)
    model_size = os.path.getsize(Path(tiny_base.source.location) / "model.safetensors")
    assert sum(path.stat().st_size for path in checkpoint.iterdir()) < model_size / 5


def test_bfloat16_steps_train_float32_biases(tiny_base: BaseModel, data: TaskData, tmp_path: Path) -> None:
    delta = delta_of(tiny_base, data, dataclasses.replace(LONGER, bf16=True), tmp_path)
    assert delta.config.metrics["accuracy"] > 0.8
    assert all(value.dtype == np.float32 for value in delta.biases.values())


def test_texts_longer_than_the_model_takes_are_refused_before_training(
    tiny_base: BaseModel, data: TaskData, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="tiny-bert takes at most 64 tokens"):
        train_task(tiny_base, data, dataclasses.replace(QUICK, max_length=65), tmp_path)


@pytest.mark.parametrize(
    "changes",
    [
        {"method": "lora"},
        {"pooling": "max"},
        {"schedule": "cosine"},
        {"epochs": 0},
        {"batch_size": 0},
        {"learning_rate": 0.0},
        {"learning_rate": 1.0},
        {"warmup": 1.0},
        {"seed": -1},
        {"max_length": 2},
        {"method": "full", "bias_terms": ("b_q",)},
    ],
)
def test_settings_that_make_no_sense_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        TrainingSettings(**changes)


def test_with_the_pooler_the_model_is_the_one_of_transformers(
    tiny_base: BaseModel, tiny_deltas: dict[str, TaskDelta]
) -> None:
    """BertForSequenceClassification, built by transformers, with the biases and head put in by name."""
    delta = tiny_deltas["three_way"]
    theirs = transformers.BertForSequenceClassification.from_pretrained(tiny_base.source.location, num_labels=3).eval()
    state = theirs.state_dict()
    for name, value in delta.biases.items():
        state[f"bert.{name}"].add_(torch.from_numpy(value))
    for name, value in delta.head.items():
        state[name].copy_(torch.from_numpy(value))
    texts = ["a short one", "a text that is a little longer than the other"]
    batch = tiny_base.tokenizer(texts, padding=True, return_tensors="pt")
    with torch.inference_mode():
        expected = theirs(**batch).logits
        found = merged_model(tiny_base, delta)(**batch)["logits"]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


def test_predictions_come_back_in_the_order_of_the_texts(
    tiny_base: BaseModel, tiny_deltas: dict[str, TaskDelta]
) -> None:
    model = merged_model(tiny_base, tiny_deltas["two_way"])
    texts = [("a much longer text than the ones beside it",), ("short",), ("of middle length",)]
    together = predict_logits(model, tiny_base.tokenizer, texts, max_length=32, batch_size=2)
    alone = [predict_logits(model, tiny_base.tokenizer, [text], max_length=32)[0] for text in texts]
    np.testing.assert_allclose(together, np.stack(alone), atol=1e-5)


def test_evaluation_uses_every_row(tiny_base: BaseModel, tiny_deltas: dict[str, TaskDelta], data: TaskData) -> None:
    model = merged_model(tiny_base, tiny_deltas["two_way"])
    accuracy = evaluate(model, tiny_base, data, 16)["accuracy"]
    assert accuracy * len(data.validation.labels) == pytest.approx(round(accuracy * len(data.validation.labels)))


def test_a_body_that_is_frozen_whole_has_no_dropout(tiny_base: BaseModel) -> None:
    model = TrainableModel(tiny_base.module, "mean", 2).train()
    assert not model.base.training
    assert model.dropout.training
    create_method(QUICK).prepare(model)
    assert model.train().base.training
    tiny_base.module.requires_grad_(False).eval()
