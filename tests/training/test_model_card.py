"""The model card has the real metrics, the comparison and the settings."""

from __future__ import annotations

import dataclasses

from bitfit_export.delta import TaskDelta
from bitfit_export.training.model_card import ComparedRun, render_card


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
        "On the validation set (32 rows)",
        "| accuracy | 0.8125 |",
        "| head only | 770 | mean | 0.005 | 3 | 0.5000 |",
        "A note.",
        "mean over the tokens",
        "torch 1.2.3",
        "bitfit-export --model tiny --tasks two_way",
    ):
        assert text in card
