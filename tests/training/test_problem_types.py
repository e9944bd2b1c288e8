"""Every problem type is trained, judged, stopped and taken up again in the same way; every family has its head."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from tokenizers.processors import TemplateProcessing

from bitfit_export.base_model.loading import BaseModel
from bitfit_export.delta import TaskDelta
from bitfit_export.errors import DataError, UsageError
from bitfit_export.reference.task_model import merged_model
from bitfit_export.training import TrainingSettings, evaluate, train_task
from bitfit_export.training.data import Examples, TaskData
from bitfit_export.training.features import encode_examples
from bitfit_export.training.heads import choose_head
from bitfit_export.training.tasks import OWN_METRICS, TaskSpec
from tests.families import tiny_base as family_base
from tests.training.test_trainer import StopAfter, same

pytestmark = pytest.mark.slow

QUICK = TrainingSettings(learning_rate=1e-2, epochs=2, max_length=24)
PROBLEMS = ("multi_label", "token", "span")
KINDS = (("cat", "unicorn", "tree"), ("runs", "sleeps", "gesticulates"), ("seven", "forty", "elevenfold"))


def make_data(problem_type: str) -> TaskData:
    """Sentences whose every word shows its label, so that a tiny model learns something."""
    random = np.random.default_rng(0)

    def sentence() -> tuple[list[str], list[int]]:
        labels = [*random.integers(0, 2, int(random.integers(1, 3))).tolist(), 2]
        random.shuffle(labels)
        return [str(random.choice(KINDS[label])) for label in labels], labels

    def examples(count: int) -> Examples:
        texts: list[tuple[str, ...]] = []
        labels: list[Any] = []
        for words, kinds in (sentence() for _ in range(count)):
            text = " ".join(words)
            if problem_type == "multi_label":
                texts.append((text,))
                labels.append([int(kind in kinds) for kind in range(2)])
            elif problem_type == "token":
                texts.append(tuple(words))
                labels.append(kinds)
            else:
                number = words[kinds.index(2)]
                texts.append(("how many?", text))
                labels.append([(text.index(number), number)])
        return Examples(texts, labels)

    columns, names = {
        "multi_label": (("sentence",), ("noun", "verb")),
        "token": (("tokens",), ("NOUN", "VERB", "NUM")),
        "span": (("question", "context"), ("start", "end")),
    }[problem_type]
    spec = TaskSpec("own", problem_type, columns, "label", names, OWN_METRICS[problem_type])
    return TaskData(spec, examples(96), examples(40), "d" * 64, "made up")


def delta_of(base: BaseModel, data: TaskData, settings: TrainingSettings, folder: Path, **options: Any) -> TaskDelta:
    delta = train_task(base, data, settings, folder, **options).delta
    assert delta is not None
    return delta


@pytest.mark.parametrize("problem_type", PROBLEMS)
def test_a_task_is_learnt_and_the_best_epoch_is_kept(tiny_base: BaseModel, tmp_path: Path, problem_type: str) -> None:
    data = make_data(problem_type)
    pooling = "mean" if problem_type == "multi_label" else "auto"
    settings = dataclasses.replace(QUICK, epochs=24, pooling=pooling, schedule="constant", warmup=0.0)
    result = train_task(tiny_base, data, settings, tmp_path)
    assert result.delta is not None
    config = result.delta.config
    assert (config.problem_type, config.labels, config.activation) == (problem_type, data.spec.labels, None)
    assert config.pooling == ("mean" if problem_type == "multi_label" else "tokens")
    assert tuple(config.metrics) == data.spec.metrics
    first = data.spec.metrics[0]
    # Without learning anything: 0.8 for all labels on every example, about 0.4 for one label per word or any word.
    assert config.metrics[first] > 0.85
    # What was found after the epoch and what the merged delta gives are two ways to one number.
    assert result.history[result.best_epoch - 1][first] == pytest.approx(config.metrics[first], abs=1e-6)
    result.delta.save(tmp_path / "delta", card="# card\n")
    assert same(TaskDelta.load(tmp_path / "delta"), result.delta)


def test_the_accuracy_of_a_token_task_by_hand(tiny_base: BaseModel, tmp_path: Path) -> None:
    """From transformers' own way with words that are split already."""
    data = make_data("token")
    delta = delta_of(tiny_base, data, QUICK, tmp_path)
    model = merged_model(tiny_base, delta)
    right = total = 0
    for words, labels in zip(data.validation.texts, data.validation.labels, strict=True):
        batch = tiny_base.tokenizer([list(words)], is_split_into_words=True, return_tensors="pt")
        found = model(**batch)["logits"][0].argmax(-1).tolist()
        firsts = [batch.word_ids(0).index(number) for number in range(len(words))]
        right += sum(found[position] == label for position, label in zip(firsts, labels, strict=True))
        total += len(labels)
    assert delta.config.metrics["accuracy"] == right / total
    assert 0.3 < right / total < 1


def test_the_answers_of_a_span_task_by_hand(tiny_base: BaseModel, tmp_path: Path) -> None:
    """Short contexts have one window: the best pair of context tokens, tried one by one."""
    data = make_data("span")
    delta = delta_of(tiny_base, data, dataclasses.replace(QUICK, epochs=1), tmp_path)
    model = merged_model(tiny_base, delta)
    right = 0
    for (question, context), answers in zip(data.validation.texts, data.validation.labels, strict=True):
        batch = tiny_base.tokenizer(question, context, return_offsets_mapping=True, return_tensors="pt")
        offsets = batch.pop("offset_mapping")[0].tolist()
        logits = model(**batch)["logits"][0]
        of_context = [position for position, side in enumerate(batch.sequence_ids(0)) if side == 1]
        pairs = [(first, last) for first in of_context for last in of_context if first <= last]
        first, last = max(pairs, key=lambda pair: logits[pair[0], 0] + logits[pair[1], 1])
        right += context[offsets[first][0] : offsets[last][1]] == answers[0][1]
    assert delta.config.metrics["exact_match"] == right / len(data.validation)
    assert 0 < right < len(data.validation)


@pytest.mark.slow
@pytest.mark.parametrize("problem_type", PROBLEMS)
def test_a_killed_training_goes_on_to_the_same_delta(tiny_base: BaseModel, tmp_path: Path, problem_type: str) -> None:
    """In the second epoch; an epoch has six steps. `test_trainer.py` has a sentence task that is killed elsewhere."""
    data = make_data(problem_type)
    whole = delta_of(tiny_base, data, QUICK, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train_task(tiny_base, data, QUICK, tmp_path / "killed", callbacks=[StopAfter(8)])
    resumed = delta_of(tiny_base, data, QUICK, tmp_path / "killed")
    assert same(whole, resumed)
    assert resumed.config == whole.config


@pytest.mark.parametrize("problem_type", PROBLEMS)
def test_another_seed_and_other_bias_terms_give_another_delta(
    tiny_base: BaseModel, tmp_path: Path, problem_type: str
) -> None:
    data, settings = make_data(problem_type), dataclasses.replace(QUICK, epochs=1, bias_terms=("b_q", "b_m2"))
    first = delta_of(tiny_base, data, settings, tmp_path / "1")
    assert set(first.biases) == {name for name in tiny_base.biases if "query" in name or "intermediate" in name}
    assert not same(first, delta_of(tiny_base, data, dataclasses.replace(settings, seed=1), tmp_path / "2"))


def test_further_validation_sets_are_reported_beside_the_first(tiny_base: BaseModel, tmp_path: Path) -> None:
    data = make_data("token")
    wrong = Examples(
        data.validation.texts, [[(label + 1) % 3 for label in example] for example in data.validation.labels]
    )
    both = dataclasses.replace(data, more_validation={"mismatched": wrong})
    delta = delta_of(tiny_base, both, QUICK, tmp_path)
    model = merged_model(tiny_base, delta)
    expected = evaluate(model, tiny_base, dataclasses.replace(data, validation=wrong), QUICK.max_length)
    assert list(delta.config.metrics) == ["accuracy", "mismatched_accuracy"]
    assert delta.config.metrics["mismatched_accuracy"] == expected["accuracy"] != delta.config.metrics["accuracy"]


@pytest.mark.parametrize(
    ("problem_type", "pooling", "activation", "expected"),
    [
        ("single_label", "auto", "auto", ("cls", "tanh")),
        ("multi_label", "cls", "auto", ("cls", "tanh")),
        ("single_label", "mean", "auto", ("mean", None)),
        ("regression", "auto", "none", ("cls", None)),
        ("single_label", "mean", "gelu", ("mean", "gelu")),
        ("token", "auto", "auto", ("tokens", None)),
        ("span", "tokens", "none", ("tokens", None)),
    ],
)
def test_the_head_of_a_roberta(
    problem_type: str, pooling: str, activation: str, expected: tuple[str, str | None]
) -> None:
    settings = TrainingSettings(pooling=pooling, activation=activation)
    assert choose_head(family_base("roberta"), problem_type, settings) == expected


def test_the_head_of_a_bert_is_what_it_always_was(tiny_base: BaseModel) -> None:
    assert choose_head(tiny_base, "single_label", TrainingSettings()) == ("pooler", None)
    assert choose_head(tiny_base, "single_label", TrainingSettings(pooling="mean")) == ("mean", None)


@pytest.mark.parametrize(
    ("problem_type", "changes"),
    [
        ("token", {"pooling": "mean"}),
        ("span", {"activation": "tanh"}),
        ("single_label", {"pooling": "tokens"}),
    ],
)
def test_heads_that_make_no_sense_are_refused(tiny_base: BaseModel, problem_type: str, changes: dict[str, str]) -> None:
    with pytest.raises(UsageError, match=next(iter(changes.values()))):
        choose_head(tiny_base, problem_type, TrainingSettings(**changes))


@pytest.mark.parametrize("family", ["roberta", "distilbert", "electra", "deberta-v2/v3", "gpt2"])
def test_a_family_s_own_head_is_trained_and_merged(tmp_path: Path, family: str) -> None:
    data = make_data("multi_label")
    base = family_base(family)
    delta = delta_of(base, data, dataclasses.replace(QUICK, epochs=1), tmp_path)
    pooling, activation = choose_head(base, "multi_label", QUICK)
    assert (delta.config.pooling, delta.config.activation) == (pooling, activation)
    assert ("dense.weight" in delta.head) is (activation is not None)
    batch = base.tokenizer(["a cat runs"], return_tensors="pt")
    with torch.no_grad():
        assert merged_model(base, delta)(**batch)["logits"].shape == (1, 2)


@pytest.mark.parametrize("problem_type", ["token", "span"])
@pytest.mark.parametrize("family", ["distilbert", "mpnet"])
def test_other_families_learn_tokens_too(tmp_path: Path, family: str, problem_type: str) -> None:
    delta = delta_of(family_base(family), make_data(problem_type), dataclasses.replace(QUICK, epochs=1), tmp_path)
    assert delta.config.pooling == "tokens"
    assert all(np.abs(value).max() > 0 for name, value in delta.biases.items() if "k_lin" not in name)


def test_a_text_without_any_token_is_refused(minilm_folder: Path) -> None:
    """BERT's tokenizer adds [CLS] and [SEP]; one of a decoder adds nothing."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(minilm_folder)
    spec = TaskSpec("own", "single_label", ("text",), "label", ("a", "b"), ("accuracy",))
    examples = Examples([("good",), ("",)], [0, 1])
    assert len(encode_examples(spec, examples, tokenizer, max_length=8).features[1]["input_ids"]) == 2
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="$A", pair="$A $B:1", special_tokens=[])
    with pytest.raises(DataError, match="example 2 has no token"):
        encode_examples(spec, examples, tokenizer, max_length=8)
