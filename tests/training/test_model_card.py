"""The model card has the real metrics, the comparison and the settings."""

from __future__ import annotations

import dataclasses

import pytest

from bitfit_export.base_model.loading import BaseModel
from bitfit_export.base_model.source import resolve_model
from bitfit_export.delta import TaskDelta
from bitfit_export.training.model_card import ComparedRun, render_card
from tests.conftest import MakeDelta


def test_a_card_has_what_a_reader_needs(tiny_deltas: dict[str, TaskDelta]) -> None:
    delta = tiny_deltas["two_way"]
    config = dataclasses.replace(
        delta.config, metrics={"accuracy": 0.8125}, training={"validation_rows": 32, "versions": {"torch": "1.2.3"}}
    )
    runs = [ComparedRun("head only", 770, "mean", 0.005, 3, {"accuracy": 0.5})]
    card = render_card(dataclasses.replace(delta, config=config), "tiny", runs, "A note.\n")
    assert card.startswith("---\nbase_model: tiny-bert\n")
    for text in (
        "# two_way on tiny",
        "On the validation set (32 examples)",
        "| validation_examples | 32 |",
        "| accuracy | 0.8125 |",
        "| head only | 770 | mean | 0.005 | 3 | 0.5000 |",
        "A note.",
        "mean over the tokens",
        "torch 1.2.3",
        "bitfit-export --model tiny --tasks two_way",
    ):
        assert text in card


def test_a_card_s_commands_name_a_hub_model_as_the_command_line_does(tiny_deltas: dict[str, TaskDelta]) -> None:
    card = render_card(tiny_deltas["two_way"], resolve_model("google/electra-small").short_name)
    assert "# two_way on google/electra-small\n" in card
    assert "bitfit-export --model google/electra-small --tasks two_way\n" in card
    assert "bitfit run bundles/google--electra-small --task two_way" in card


def test_a_card_s_command_adds_the_biases_that_were_trained(tiny_deltas: dict[str, TaskDelta]) -> None:
    delta = tiny_deltas["two_way"]
    config = dataclasses.replace(delta.config, training={"added_biases": ["one.bias", "two.bias"]})
    card = render_card(dataclasses.replace(delta, config=config), "tiny")
    assert "bitfit-export --model tiny --add-biases --tasks two_way\n" in card
    assert "| added_biases | one.bias, two.bias |" in card


@pytest.mark.parametrize(
    ("problem_type", "labels", "pipeline"),
    [
        ("token", ("NOUN", "VERB"), "token-classification"),
        ("span", ("start", "end"), "question-answering"),
        ("multi_label", ("a", "b"), "text-classification"),
    ],
)
def test_a_card_says_what_kind_of_task_it_is(
    tiny_base: BaseModel, make_delta: MakeDelta, problem_type: str, labels: tuple[str, ...], pipeline: str
) -> None:
    delta = make_delta(tiny_base, "task", problem_type=problem_type, labels=labels, pooling="last")
    card = render_card(delta, "tiny")
    assert f"pipeline_tag: {pipeline}\n" in card
    assert ("reads its last token." if problem_type == "multi_label" else "reads its tokens one by one.") in card
