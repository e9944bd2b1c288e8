"""BiasTrainer learns token and span tasks as bitfit-train does: the same losses and the same scores as in PyTorch."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bitfit_export.base_model.loading import BaseModel
from bitfit_export.bundle import decode_row, encode_row, read_row
from bitfit_export.compiler import CompileOptions
from bitfit_export.delta import TaskDelta
from bitfit_export.errors import DataError, UsageError
from bitfit_export.runtime import BiasSession
from bitfit_export.runtime.learning import BiasTrainer, LabelledTexts, LearnedRow, LearningSettings
from bitfit_export.runtime.learning.examples import batches_of
from bitfit_export.runtime.session import parts_of
from bitfit_export.training.examples import Examples
from bitfit_export.training.features import collate, encode_examples
from bitfit_export.training.tasks import TaskSpec
from bitfit_export.training.trainable import task_loss
from tests.conftest import random_delta
from tests.runtime.learning.in_pytorch import PyTorchLearner
from tests.traces import compile_bundle

TAGS = ("B-THING", "I-THING", "O")
SENTENCES = LabelledTexts(
    [
        ("good", "people", "eat", "unbelievably", "fine", "food"),
        ("a", "lovely", "day"),
        ("the", "film", "was", "awful"),
        ("bad", "food", "and", "poor", "people"),
        ("what", "a", "day", "for", "a", "film", "that", "nobody", "will", "see"),  # longer than a text may be
    ],
    [[0, 1, 2, 2, 2, 0], [2, 2, 0], [2, 0, 2, 2], [2, 0, 2, 0, 1], [2, 2, 0, 2, 2, 0, 2, 2, 2, 2]],
)
CONTEXT = "the good people of this city eat fine food on a lovely day and see a film that nobody there will forget"
QUESTIONS = LabelledTexts(
    [
        ("what do people eat?", CONTEXT),
        ("when?", CONTEXT),
        ("what do they see?", "they see a film"),
        ("who?", "good people"),
    ],
    [
        [(CONTEXT.index("fine food"), "fine food"), (CONTEXT.index("food"), "food")],
        [(CONTEXT.index("a lovely day"), "a lovely day")],
        [(9, "a film")],
        [(0, "good people")],
    ],
)
TASKS: dict[str, tuple[LabelledTexts, TaskSpec]] = {
    "words": (SENTENCES, TaskSpec("words", "token", ("tokens",), "tags", TAGS, ("entity_f1", "accuracy"))),
    "answer": (
        QUESTIONS,
        TaskSpec("answer", "span", ("question", "context"), "answers", ("start", "end"), ("f1", "exact_match")),
    ),
}
SETTINGS = LearningSettings(learning_rate=3e-3, epochs=3, batch_size=2, part_size=1, schedule="constant", warmup=0)
#: So short that a sentence is cut, and that a context is read in windows.
MAX_LENGTHS = {"words": 11, "answer": 24}


@pytest.fixture(scope="module")
def deltas(tiny_base: BaseModel) -> dict[str, TaskDelta]:
    return {
        name: random_delta(tiny_base, name, labels=spec.labels, problem_type=spec.problem_type, seed=seed)
        for seed, (name, (_, spec)) in enumerate(TASKS.items())
    }


@pytest.fixture(scope="module")
def session(
    tiny_base: BaseModel, deltas: dict[str, TaskDelta], tmp_path_factory: pytest.TempPathFactory
) -> BiasSession:
    """Without folding, for the terms of the row are then those that PyTorch's AdamW changes."""
    folder = tmp_path_factory.mktemp("tokens")
    compile_bundle(tiny_base, deltas, folder, CompileOptions(trainable=True, layout="packed", fold=False))
    return BiasSession(folder, engine="onnxruntime", threads=1)


def learn(session: BiasSession, name: str, **more: Any) -> LearnedRow:
    data, spec = TASKS[name]
    settings = replace(SETTINGS, max_length=MAX_LENGTHS[name])
    arguments = {"labels": spec.labels, "problem_type": spec.problem_type, "settings": settings} | more
    return BiasTrainer(session).learn(name, data, data, **arguments)


@pytest.mark.parametrize("name", TASKS)
def test_losses_and_scores_are_pytorchs(
    session: BiasSession, tiny_base: BaseModel, deltas: dict[str, TaskDelta], name: str
) -> None:
    start = read_row(parts_of(session).model.folder / "tasks" / f"{name}.bias", layout=session.manifest.layout)
    losses: list[float] = []
    learnt = learn(session, name, start=start, on_step=lambda number, total, loss: losses.append(loss))

    expected_losses, expected_scores = in_pytorch(tiny_base, deltas[name], name)

    np.testing.assert_allclose(losses, expected_losses, rtol=0, atol=1e-4)
    for found, expected in zip(learnt.history, expected_scores, strict=True):
        assert {key: found[key] for key in expected} == pytest.approx(expected)
        assert next(iter(found)) == next(iter(expected))


def in_pytorch(base: BaseModel, delta: TaskDelta, name: str) -> tuple[list[float], list[dict[str, float]]]:
    """The loss of each step, and the scores after each epoch."""
    data, spec = TASKS[name]
    encoded = encode_examples(
        spec, Examples(list(data.texts), list(data.labels)), base.tokenizer, max_length=MAX_LENGTHS[name]
    )
    learner = PyTorchLearner(base, delta, SETTINGS)
    losses, scores = [], []
    for epoch in range(SETTINGS.epochs):
        random = np.random.default_rng([SETTINGS.seed, epoch])
        for places in batches_of([len(each["input_ids"]) for each in encoded.features], SETTINGS.batch_size, random):
            batch = collate(spec.problem_type, base.tokenizer, [encoded.features[place] for place in places])
            loss = task_loss(spec.problem_type, logits_of(learner.model, spec, batch), batch["labels"])
            losses.append(learner.step(loss))
        every = [collate(spec.problem_type, base.tokenizer, [feature]) for feature in encoded.features]
        scores.append(encoded.score([logits_of(learner.model, spec, batch)[0].detach().numpy() for batch in every]))
    return losses, scores


def logits_of(model: Any, spec: TaskSpec, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    logits: torch.Tensor = model(**{name: value for name, value in batch.items() if name != "labels"})["logits"]
    if spec.problem_type == "span":  # padding is no answer
        logits = logits.masked_fill(batch["attention_mask"][:, :, None] == 0, -1e9)
    return logits


@pytest.mark.parametrize("name", TASKS)
def test_a_new_task_is_learnt_and_its_row_runs(session: BiasSession, name: str, tmp_path: Path) -> None:
    settings = LearningSettings(learning_rate=2e-2, epochs=25, batch_size=4, max_length=MAX_LENGTHS["answer"])
    learnt = learn(session, name, settings=settings)
    data, spec = TASKS[name]
    assert next(iter(learnt.scores.values())) > 0.9
    assert decode_row(encode_row(learnt.row)).problem_type == spec.problem_type
    learnt.save(tmp_path / "new.bias")
    session.load_task(tmp_path / "new.bias", name="new", labels=learnt.labels)
    try:
        if name == "words":
            answers = session.predict([list(words) for words in data.texts], "new")
            assert [each["label"] for each in answers[1]] == [TAGS[label] for label in data.labels[1]]
        else:
            assert session.predict(data.texts[2], "new")[0]["answer"] == "a film"
    finally:
        session.unload_task("new")


REFUSED: dict[str, tuple[str, LabelledTexts, str]] = {
    "no word": ("words", LabelledTexts([()], [[]]), "example 1 has 0 texts, expected words"),
    "a word without a label": ("words", LabelledTexts([("a", "b")], [[0]]), "expected for each of 2 words 0 to 2"),
    "a label that the head lacks": ("words", LabelledTexts([("a", "b")], [[0, 3]]), r"has the label '\[0, 3\]'"),
    "one class": ("words", LabelledTexts([("a", "b")], [[2, 2]]), "examples of the label O alone"),
    "no context": ("answer", LabelledTexts([("a",)], [[(0, "a")]]), "has 1 texts, expected a question and a context"),
    "no answer": ("answer", LabelledTexts([("a", "b")], [[]]), "expected pairs of a character and the text"),
    "an answer elsewhere": ("answer", LabelledTexts([("a", "b c")], [[(0, "c")]]), "expected pairs of a character"),
    "a long question": (
        "answer", LabelledTexts([("b", "c"), ("a " * 40, "b")], [[(0, "c")], [(0, "b")]]),
        "the training set: example 2 has a question of 43 tokens",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("name", "train", "message"), REFUSED.values(), ids=REFUSED)
def test_examples_that_cannot_be_learnt_from(
    session: BiasSession, name: str, train: LabelledTexts, message: str
) -> None:
    data, spec = TASKS[name]
    with pytest.raises(DataError, match=message):
        BiasTrainer(session).learn(
            name,
            train,
            data,
            labels=spec.labels,
            problem_type=spec.problem_type,
            settings=replace(SETTINGS, max_length=24),
        )


def test_a_bundle_of_sentence_tasks_learns_no_token_task(trainable_bundle: Path) -> None:
    session = BiasSession(trainable_bundle, engine="onnxruntime", threads=1)
    with pytest.raises(UsageError, match="a token task reads each token, but the bundle has no output token_logits"):
        learn(session, "words")
