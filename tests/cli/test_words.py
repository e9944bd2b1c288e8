"""Options that have an older name keep it, unseen."""

from __future__ import annotations

import argparse
from types import ModuleType

import pytest

from bitfit_export.cli import reproduce, sweep, train

NEEDED = {
    train: ["--model", "m", "--task", "mood"],
    sweep: ["--model", "m", "--tasks", "mood"],
    reproduce: ["table3", "--model", "m"],
}


@pytest.mark.parametrize("command", NEEDED)
def test_counts_of_examples_have_an_older_name_that_the_help_does_not_show(command: ModuleType) -> None:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    old = parser.parse_args([*NEEDED[command], "--train-rows", "8", "--validation-rows", "9"])
    new = parser.parse_args([*NEEDED[command], "--train-examples", "8", "--validation-examples", "9"])
    assert old == new
    assert (int(new.train_examples), new.validation_examples) == (8, 9)
    neither = parser.parse_args(NEEDED[command])
    assert (neither.train_examples, neither.validation_examples) == (None, None)
    text = parser.format_help()
    assert "--train-examples" in text
    assert "--validation-examples" in text
    assert "rows" not in text
