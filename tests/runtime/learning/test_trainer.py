"""BiasTrainer learns as PyTorch's AdamW does, resumes to the bit, and refuses what cannot be learnt from."""

from __future__ import annotations

import resource
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from bitfit_export.base_model.loading import BaseModel
from bitfit_export.bundle import decode_row, encode_row, read_row, write_row
from bitfit_export.compiler import CompileOptions
from bitfit_export.delta import TaskDelta
from bitfit_export.errors import BitfitError, BundleError, DataError, InputError, OutputError, UsageError
from bitfit_export.runtime import BiasSession
from bitfit_export.runtime.learning import BiasTrainer, Epoch, LabelledTexts, LearningPlan, LearningSettings
from bitfit_export.runtime.learning.adamw import AdamW, clipped
from bitfit_export.runtime.learning.examples import batches_of
from bitfit_export.runtime.learning.plan import peak_memory
from bitfit_export.runtime.learning.scores import metric_names
from bitfit_export.training.tasks import GLUE_TASKS, OWN_METRICS, ProblemType, TaskSpec
from tests.conftest import random_delta
from tests.runtime.learning.in_pytorch import PyTorchLearner
from tests.traces import compile_bundle

FAST = LearningSettings(learning_rate=2e-2, epochs=15, batch_size=4, schedule="constant", warmup=0)
LABELS = ("bad", "good")
#: Examples of which the most are right in one epoch, and the classes are told apart best in another.
DISPUTED = LabelledTexts(
    [(text,) for text in ("good", "fine", "lovely film", "bad", "good day", "what", "the")], [1, 0, 1, 0, 0, 1, 1]
)


def test_adamw_is_pytorchs() -> None:
    random = np.random.default_rng(0)
    start = random.normal(size=50).astype(np.float32)
    values, tensor = start.copy(), torch.tensor(start, requires_grad=True)
    ours = AdamW(50, epsilon=1e-8, weight_decay=0.1)
    theirs = torch.optim.AdamW([tensor], lr=1e-2, eps=1e-8, weight_decay=0.1)
    for step in range(50):
        gradient = (random.normal(size=50) * 3).astype(np.float32)
        tensor.grad = torch.tensor(gradient)
        torch.nn.utils.clip_grad_norm_([tensor], 1.0)
        rate = theirs.param_groups[0]["lr"] = 1e-2 / (step + 1)
        theirs.step()
        ours.step(values, clipped(gradient, 1.0), rate)
        np.testing.assert_allclose(values, tensor.detach().numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("schedule", ["constant", "linear"])
def test_learning_rates_are_those_of_transformers(schedule: str) -> None:
    from transformers import get_scheduler

    settings = LearningSettings(learning_rate=1e-3, schedule=schedule, warmup=0.2)
    optimiser = torch.optim.AdamW([torch.zeros(1, requires_grad=True)], lr=1e-3)
    name = "constant_with_warmup" if schedule == "constant" else "linear"
    theirs = get_scheduler(name, optimiser, num_warmup_steps=4, num_training_steps=20)
    for step in range(20):
        assert settings.rate_at(step, 20) == pytest.approx(optimiser.param_groups[0]["lr"], abs=1e-12)
        optimiser.step()
        theirs.step()


def test_200_steps_follow_pytorch(tmp_path: Path, tiny_base: BaseModel, examples: LabelledTexts) -> None:
    """From the same row, on the same batches: the loss of every step is PyTorch's to 1e-4.

    Without folding, for the terms of the row are then those that PyTorch's AdamW changes.
    """
    delta = random_delta(tiny_base, "mood", labels=LABELS, seed=5)
    compile_bundle(tiny_base, {"mood": delta}, tmp_path, CompileOptions(trainable=True, layout="packed", fold=False))
    session = BiasSession(tmp_path, engine="onnxruntime", threads=1)
    settings = LearningSettings(learning_rate=3e-4, epochs=67, batch_size=4, schedule="linear", warmup=0.1)
    start = read_row(tmp_path / "tasks" / "mood.bias", layout=session.manifest.layout)
    losses: list[float] = []
    BiasTrainer(session).learn(
        "mood", examples, examples, labels=LABELS, settings=settings, start=start,
        on_step=lambda number, total, loss: losses.append(loss),
    )  # fmt: skip

    expected = _losses_in_pytorch(tiny_base, delta, session, examples, settings)

    assert len(losses) == 201
    np.testing.assert_allclose(losses, expected, rtol=0, atol=1e-4)
    assert np.mean(losses[-3:]) < np.mean(losses[:3])


def _losses_in_pytorch(
    base: BaseModel, delta: TaskDelta, session: BiasSession, examples: LabelledTexts, settings: LearningSettings
) -> list[float]:
    learner = PyTorchLearner(base, delta, settings)
    lengths = [int(session.encode(text)["attention_mask"].sum()) for (text,) in examples.texts]
    steps = settings.epochs * 3
    losses: list[float] = []
    for epoch in range(settings.epochs):
        for batch in batches_of(lengths, settings.batch_size, np.random.default_rng([settings.seed, epoch])):
            text = session.encode([examples.texts[place][0] for place in batch])
            inputs = {name: torch.from_numpy(value) for name, value in text.items()}
            logits = learner.model(**inputs)["logits"]
            loss = torch.nn.functional.cross_entropy(logits, torch.tensor([examples.labels[place] for place in batch]))
            losses.append(learner.step(loss, settings.rate_at(len(losses), steps)))
    return losses


def test_a_new_task_is_learnt_and_loaded_while_the_session_runs_others(
    session: BiasSession, trainer: BiasTrainer, examples: LabelledTexts, tmp_path: Path
) -> None:
    before = session.predict("a fine day", "two_way")
    learnt = trainer.learn("mood", examples, examples, labels=LABELS, settings=FAST)
    assert learnt.scores["accuracy"] == 1
    learnt.save(tmp_path / "mood.bias")
    session.load_task(tmp_path / "mood.bias", labels=LABELS)
    try:
        found = session.predict([text for (text,) in examples.texts], "mood")
        assert [each["label"] for each in found] == [LABELS[label] for label in examples.labels]
    finally:
        session.unload_task("mood")
    assert session.predict("a fine day", "two_way") == before


def test_the_same_seed_gives_the_same_row_and_another_one_another(
    trainer: BiasTrainer, examples: LabelledTexts
) -> None:
    short = replace(FAST, epochs=1)
    rows = [
        encode_row(trainer.learn("mood", examples, examples, labels=LABELS, settings=replace(short, seed=seed)).row)
        for seed in (0, 0, 1)
    ]
    assert rows[0] == rows[1] != rows[2]


def test_a_batch_in_parts_gives_the_same_row_up_to_rounding(trainer: BiasTrainer, examples: LabelledTexts) -> None:
    short = replace(FAST, epochs=2, learning_rate=1e-3)
    whole = trainer.learn("mood", examples, examples, labels=LABELS, settings=short).row
    parts = trainer.learn("mood", examples, examples, labels=LABELS, settings=replace(short, part_size=3)).row
    np.testing.assert_allclose(parts.biases, whole.biases, atol=2e-4)


class _KilledError(Exception):
    """Ends a run between two steps, as a kill does: nothing is written after it."""


def killed_after(step: int) -> Callable[[int, int, float], None]:
    """Returns an `on_step` that ends the run after a step."""

    def kill(number: int, total: int, loss: float) -> None:
        if number == step:
            raise _KilledError

    return kill


@pytest.mark.parametrize("killed_at", [1, 4, 6, 8])
def test_a_killed_run_resumes_to_the_bit(
    trainer: BiasTrainer, examples: LabelledTexts, tmp_path: Path, killed_at: int
) -> None:
    settings = replace(FAST, epochs=3, checkpoint_steps=2)
    whole = trainer.learn("mood", examples, examples, labels=LABELS, settings=settings)

    file = tmp_path / "mood.learning"
    with pytest.raises(_KilledError):
        trainer.learn(
            "mood", examples, examples, labels=LABELS, settings=settings, checkpoint=file,
            on_step=killed_after(killed_at),
        )  # fmt: skip
    steps: list[int] = []
    resumed = trainer.learn(
        "mood", examples, examples, labels=LABELS, settings=settings, checkpoint=file,
        on_step=lambda number, total, loss: steps.append(number),
    )  # fmt: skip
    assert killed_at - 3 <= steps[0] - 1 <= killed_at
    assert encode_row(resumed.row) == encode_row(whole.row)
    assert resumed.history == whole.history


def test_a_checkpoint_of_another_run_and_a_damaged_one_are_refused(
    trainer: BiasTrainer, examples: LabelledTexts, tmp_path: Path
) -> None:
    file = tmp_path / "mood.learning"
    short = replace(FAST, epochs=1)
    trainer.learn("mood", examples, examples, labels=LABELS, settings=short, checkpoint=file)
    with pytest.raises(InputError, match="of a run with other settings, data or model"):
        trainer.learn(
            "mood", examples, examples, labels=LABELS, settings=replace(short, learning_rate=1.0), checkpoint=file
        )
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(InputError, match="is damaged"):
        trainer.learn("mood", examples, examples, labels=LABELS, settings=short, checkpoint=file)


def test_learning_ends_without_a_better_score_and_gives_the_best_epoch(
    trainer: BiasTrainer, examples: LabelledTexts
) -> None:
    epochs: list[Epoch] = []
    learnt = trainer.learn(
        "mood", examples, examples, labels=LABELS, settings=replace(FAST, epochs=50, patience=2), on_epoch=epochs.append
    )
    assert len(epochs) == learnt.best_epoch + 2
    assert [epoch.number for epoch in epochs if epoch.is_best][-1] == learnt.best_epoch


def test_the_metric_that_was_chosen_chooses_the_epoch(trainer: BiasTrainer, examples: LabelledTexts) -> None:
    settings = replace(FAST, epochs=6, learning_rate=5e-3)
    best = set()
    for metric in (None, "matthews_correlation"):
        learnt = trainer.learn("mood", examples, DISPUTED, labels=LABELS, settings=replace(settings, metric=metric))
        first = metric or "accuracy"
        assert next(iter(learnt.scores)) == first
        scores = [epoch[first] for epoch in learnt.history]
        assert learnt.best_epoch == scores.index(max(scores)) + 1
        best.add(learnt.best_epoch)
    assert len(best) == 2


def test_a_metric_that_the_task_lacks_is_refused(trainer: BiasTrainer, examples: LabelledTexts) -> None:
    settings = replace(FAST, metric="pearson")
    with pytest.raises(UsageError, match="the metric is 'pearson', expected one of accuracy, f1, matthews_correlation"):
        trainer.learn("mood", examples, examples, labels=LABELS, settings=settings)


@pytest.mark.parametrize("spec", GLUE_TASKS.values(), ids=GLUE_TASKS)
def test_a_device_has_the_metric_by_which_bitfit_train_chooses(spec: TaskSpec) -> None:
    assert spec.metrics[0] in metric_names(spec.problem_type, spec.labels)


@pytest.mark.parametrize("problem_type", OWN_METRICS)
def test_the_default_metric_is_bitfit_trains(problem_type: ProblemType) -> None:
    assert metric_names(problem_type, ("a", "b"))[0] == OWN_METRICS[problem_type][0]


def test_learning_continues_from_a_row_with_its_head(trainer: BiasTrainer, examples: LabelledTexts) -> None:
    first = trainer.learn("mood", examples, examples, labels=LABELS, settings=FAST)
    again = trainer.learn("mood", examples, examples, labels=LABELS, settings=replace(FAST, epochs=1), start=first.row)
    assert again.history[0]["loss"] < 0.7 * first.history[0]["loss"]


def test_a_base_row_that_changed_after_the_bundle_was_opened_is_refused(
    trainable_bundle: Path, tmp_path: Path, examples: LabelledTexts
) -> None:
    bundle = Path(shutil.copytree(trainable_bundle, tmp_path / "bundle"))
    trainer = BiasTrainer(BiasSession(bundle, engine="onnxruntime", threads=1))
    row = read_row(bundle / "base.bias")
    write_row(bundle / "base.bias", replace(row, biases=row.biases + np.float32(1)))
    with pytest.raises(BundleError, match=r"base\.bias has sha256 \w+, expected"):
        trainer.learn("mood", examples, examples, labels=LABELS, settings=FAST)


@pytest.mark.parametrize(
    ("problem_type", "labels", "values", "metric"),
    [
        ("multi_label", ("a", "b", "c"), [[1, 0, 1]] * 6 + [[0, 1, 0]] * 6, "micro_f1"),
        ("regression", (), [2.0] * 6 + [-1.0] * 6, "pearson"),
    ],
)
def test_other_problem_types_are_learnt(
    trainer: BiasTrainer,
    examples: LabelledTexts,
    problem_type: str,
    labels: tuple[str, ...],
    values: list,
    metric: str,
) -> None:
    data, settings = LabelledTexts(examples.texts, values), replace(FAST, metric=metric)
    learnt = trainer.learn("other", data, data, labels=labels, problem_type=problem_type, settings=settings)
    assert next(iter(learnt.scores.values())) > 0.9
    assert decode_row(encode_row(learnt.row)).labels == max(1, len(labels))


def test_a_plan_is_said_before_the_first_step(trainer: BiasTrainer, examples: LabelledTexts) -> None:
    said: list[LearningPlan | int] = []
    trainer.learn(
        "mood", examples, examples, labels=LABELS, settings=replace(FAST, epochs=1, part_size=3),
        on_plan=said.append, on_step=lambda number, total, loss: said.append(number),
    )  # fmt: skip
    plan, *steps = said
    assert steps == [1, 2, 3]
    assert isinstance(plan, LearningPlan)
    # "what a fine film" and two special tokens.
    assert (plan.steps, plan.part_items, plan.part_tokens) == (3, 3, 6)
    assert plan.values > 0
    assert plan.peak_bytes > 10**7


@pytest.mark.parametrize(("part_size", "hint"), [(3, "--part-size 1"), (1, "--max-length")])
def test_more_memory_than_the_limit_is_refused_before_the_first_step(
    session: BiasSession, trainer: BiasTrainer, examples: LabelledTexts, part_size: int, hint: str
) -> None:
    def no_step(number: int, total: int, loss: float) -> None:
        raise AssertionError

    settings = replace(FAST, part_size=part_size)
    with pytest.raises(UsageError, match=r"for . texts of 6 tokens at once, expected at most 1 MB") as refused:
        trainer.learn("mood", examples, examples, labels=LABELS, settings=settings, memory_limit=10**6, on_step=no_step)
    assert hint in str(refused.value)
    assert session.predict("a fine day", "two_way")


def test_memory_is_the_peak_and_the_weights_that_are_not_read_yet(tmp_path: Path) -> None:
    status, maps = tmp_path / "status", tmp_path / "smaps"
    status.write_text("Name:\tpython\nVmHWM:\t  2000 kB\nVmRSS:\t  1500 kB\n")
    maps.write_text(
        "7f00-7f10 r--p 00000000 08:01 12    /a/model.onnx.data\nSize:    500 kB\nRss:     120 kB\n"
        "7f10-7f20 r--p 00000000 08:01 13    /a/other\nSize:    900 kB\nRss:       0 kB\nVmFlags: rd mr\n"
    )
    assert peak_memory("model.onnx.data", status, maps) == 1024 * (2000 + 380)
    assert peak_memory("model.onnx.data", tmp_path / "nothing", maps) == 0


REFUSED = {
    "no example": (LabelledTexts([], []), DataError, "the training set has no examples"),
    "a label that the head lacks": (LabelledTexts([("a",), ("b",)], [0, 2]), DataError, "example 2 has the label '2'"),
    "one class": (LabelledTexts([("a",), ("b",)], [1, 1]), DataError, "examples of the label good alone"),
    "a label that is not a number": (LabelledTexts([("a",)], ["x"]), DataError, "example 1 has the label 'x'"),
}


@pytest.mark.parametrize(("train", "error", "message"), REFUSED.values(), ids=REFUSED)
def test_examples_that_cannot_be_learnt_from(
    trainer: BiasTrainer, examples: LabelledTexts, train: LabelledTexts, error: type[BitfitError], message: str
) -> None:
    with pytest.raises(error, match=message):
        trainer.learn("mood", train, examples, labels=LABELS)


def test_a_loss_that_is_not_a_number_ends_learning_and_not_the_session(
    session: BiasSession, trainer: BiasTrainer, examples: LabelledTexts
) -> None:
    with pytest.raises(UsageError, match="expected a finite number"):
        trainer.learn("mood", examples, examples, labels=LABELS, settings=replace(FAST, learning_rate=1e38))
    assert session.predict("a fine day", "two_way")


@contextmanager
def room_for(size: int) -> Iterator[None]:
    """A file of this process has no room for more bytes than that."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)


def test_no_room_for_a_checkpoint_is_said_and_the_old_one_stays(
    session: BiasSession, trainer: BiasTrainer, examples: LabelledTexts, tmp_path: Path
) -> None:
    file, settings = tmp_path / "mood.learning", replace(FAST, epochs=2, checkpoint_steps=2)
    with pytest.raises(_KilledError):
        trainer.learn(
            "mood", examples, examples, labels=LABELS, settings=settings, checkpoint=file, on_step=killed_after(3)
        )
    before = file.read_bytes()
    with room_for(1000), pytest.raises(OutputError, match="could not be written: File too large"):
        trainer.learn("mood", examples, examples, labels=LABELS, settings=settings, checkpoint=file)
    assert [each.read_bytes() for each in tmp_path.iterdir()] == [before]
    assert session.predict("a fine day", "two_way")


def test_a_bundle_without_the_program_cannot_learn(tiny_bundle: Path) -> None:
    session = BiasSession(tiny_bundle, engine="onnxruntime", threads=1)
    with pytest.raises(UsageError, match="has no program train_step") as refused:
        BiasTrainer(session)
    assert "--trainable" in str(refused.value)
