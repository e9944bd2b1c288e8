"""What is trained for an experiment, in which order and with which settings."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bitfit_export.base_model.loading import BaseModel
from bitfit_export.errors import UsageError
from bitfit_export.experiments import Trial
from bitfit_export.experiments.reproduce import PAPER, Protocol, read_protocol

FILE: dict[str, Any] = {
    "settings": {"epochs": 3, "learning_rate": 1e-3, "scored_train_examples": 7},
    "tasks": {"cola": {"epochs": 5, "train_examples": 100}},
    "methods": {"full": {"learning_rate": [1e-5, 2e-5]}, "b_q+b_m2": {"epochs": 6}},
    "experiments": {
        "table3": {
            "methods": ["bitfit", "b_q+b_m2", "full"],
            "rounds": [{"tasks": ["mrpc", "cola"], "seeds": [0]}, {"tasks": ["mrpc"], "seeds": [1, 2]}],
        },
        "figure1": {"settings": {"batch_size": 4}},
        "figure2": {"sizes": [500, 1000]},
        "data-size": {"shares": [0.5, 1.0], "methods": ["bitfit"], "rounds": [{"tasks": ["mrpc"], "seeds": [0]}]},
    },
}


@pytest.fixture
def protocol(tmp_path: Path) -> Protocol:
    (tmp_path / "protocol.json").write_text(json.dumps(FILE))
    return read_protocol(tmp_path / "protocol.json")


def short(trial: Trial) -> str:
    return f"{trial.task} {trial.method} {trial.learning_rate:g} {trial.settings.seed}"


def test_rounds_are_trained_in_their_order_and_all_of_a_seed_before_the_next(
    protocol: Protocol, tiny_base: BaseModel
) -> None:
    trials = protocol.trials(protocol.experiments["table3"], tiny_base)
    of_one_seed = ["bitfit 0.001 {}", "b_q+b_m2 0.001 {}", "full 1e-05 {}", "full 2e-05 {}"]
    assert [short(trial) for trial in trials] == [
        *(f"mrpc {each.format(0)}" for each in of_one_seed),
        *(f"cola {each.format(0)}" for each in of_one_seed),
        *(f"mrpc {each.format(1)}" for each in of_one_seed),
        *(f"mrpc {each.format(2)}" for each in of_one_seed),
    ]


def test_methods_win_over_tasks_and_tasks_over_what_is_for_all(protocol: Protocol, tiny_base: BaseModel) -> None:
    trials = protocol.trials(protocol.experiments["table3"], tiny_base)
    epochs = {(trial.task, trial.method): trial.settings.epochs for trial in trials}
    assert (epochs["mrpc", "bitfit"], epochs["cola", "bitfit"], epochs["cola", "b_q+b_m2"]) == (3, 5, 6)
    assert {(trial.task, trial.train_examples) for trial in trials} == {("mrpc", None), ("cola", 100)}
    assert {trial.scored_train_examples for trial in trials} == {7}
    assert {
        trial.settings.epochs for trial in protocol.trials(protocol.experiments["table3"], tiny_base, {"epochs": 1})
    } == {1}


def test_an_experiment_has_settings_of_its_own(protocol: Protocol, tiny_base: BaseModel) -> None:
    (trial,) = protocol.trials(protocol.experiments["figure1"], tiny_base)
    assert (trial.task, trial.settings.batch_size, trial.settings.epochs) == ("rte", 4, 3)


def test_sizes_and_shares_make_trials(protocol: Protocol, tiny_base: BaseModel) -> None:
    sizes = protocol.trials(protocol.experiments["figure2"], tiny_base)
    assert {(trial.task, trial.method, trial.train_examples) for trial in sizes} == {
        ("squad", method, size) for method in ("bitfit", "full") for size in (500, 1000)
    }
    shares = protocol.trials(protocol.experiments["data-size"], tiny_base)
    assert [trial.train_share for trial in shares] == [0.5, None]
    assert shares[1] in protocol.trials(protocol.experiments["table3"], tiny_base)


def test_the_same_training_is_one_trial_in_every_experiment(protocol: Protocol, tiny_base: BaseModel) -> None:
    table3 = protocol.trials(protocol.experiments["table3"].narrowed(methods=["full", "bitfit"]), tiny_base)
    gap = protocol.trials(protocol.experiments["gap"].narrowed(tasks=["mrpc"], seeds=[0]), tiny_base)
    assert gap
    assert set(gap) <= set(table3)


def test_the_papers_own_protocol() -> None:
    """Table 3 and section 4: full data sets, five seeds, GLUE without WNLI."""
    table3 = PAPER.experiments["table3"]
    assert set(table3.tasks) == {"qnli", "sst2", "mnli", "cola", "mrpc", "stsb", "rte", "qqp"}
    assert table3.seeds_of("rte") == (0, 1, 2, 3, 4)
    assert set(table3.methods) == {
        "full",
        "bitfit",
        "b_q+b_m2",
        "b_m2",
        "b_q",
        "frozen",
        "rand-uniform",
        "rand-row-col",
        "adapters",
        "diff-pruning",
    }


def test_a_learning_rate_that_nothing_says_is_the_papers(tiny_base: BaseModel) -> None:
    """For a model that the paper does not have, the rate that its table 6 has most often."""
    trials = PAPER.trials(PAPER.experiments["figure1"], tiny_base)
    assert [trial.learning_rate for trial in trials] == [4e-4]


def test_the_schedule_is_the_papers_unless_the_protocol_says_another(protocol: Protocol, tiny_base: BaseModel) -> None:
    """A constant rate without warm-up, whatever the default of other trainings is."""

    def schedules(protocol: Protocol, **overrides: Any) -> set[tuple[str, float]]:
        trials = protocol.trials(protocol.experiments["figure1"], tiny_base, overrides)
        return {(trial.settings.schedule, trial.settings.warmup) for trial in trials}

    assert schedules(PAPER) == schedules(protocol) == {("constant", 0.0)}
    assert schedules(PAPER, schedule="linear") == {("linear", 0.0)}
    assert schedules(replace(protocol, settings={"schedule": "linear", "warmup": 0.06})) == {("linear", 0.06)}


def test_an_experiment_is_narrowed(protocol: Protocol) -> None:
    table3 = protocol.experiments["table3"]
    assert table3.narrowed(tasks=["mrpc"]).seeds_of("mrpc") == (0, 1, 2)
    assert table3.narrowed(tasks=["mrpc"]).tasks == ("mrpc",)
    assert table3.narrowed(tasks=["spam"]).seeds_of("spam") == (0,)
    assert table3.narrowed(seeds=[5]).seeds_of("cola") == (5,)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ('{"charm": 1}', "charm"),
        ('{"settings": {"charm": 1}}', "charm"),
        ('{"tasks": {"cola": {"seed": 1}}}', "seed"),
        ('{"experiments": {"table9": {}}}', "table9"),
        ('{"experiments": {"table3": {"rounds": [{"tasks": ["cola"]}]}}}', "seeds"),
        ('{"experiments": []}', "form"),
        ('{"settings": {"train_rows": 1, "train_examples": 2}}', "one of them twice, by its old name and by its new"),
        ('{"settings": {"train_rows": "1"}}', 'train_examples "1", expected whole numbers'),
        ('{"settings": {"epochs": "8"}}', 'epochs "8", expected whole numbers'),
        ('{"settings": {"max_length": null}}', "max_length null"),
        ('{"settings": {"bf16": "false"}}', "expected true or false"),
        ('{"settings": {"epochs": true}}', "epochs true"),
        ('{"methods": {"full": {"learning_rate": "1e-3"}}}', 'learning_rate "1e-3", expected numbers'),
        ('{"methods": {"full": {"learning_rate": []}}}', "learning_rate"),
        ('{"methods": {"full": {"learning_rate": [1e-3, "2e-3"]}}}', "learning_rate"),
        ('{"experiments": {"table3": {"methods": "bitfit"}}}', 'methods "bitfit", expected a list of text'),
        ('{"experiments": {"table3": {"rounds": [{"tasks": "cola", "seeds": [0]}]}}}', "tasks"),
        ('{"experiments": {"table3": {"sizes": [100]}}}', "sizes of an experiment that has none"),
        ('{"experiments": {"figure2": {"shares": [0.1]}}}', "shares of an experiment that has none"),
        ('{"experiments": {"figure2": {"sizes": [0]}}}', "sizes"),
        ('{"experiments": {"data-size": {"shares": [10, 100]}}}', "shares above 0 up to 1"),
    ],
)
def test_a_file_that_is_no_protocol_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "protocol.json").write_text(text)
    with pytest.raises(UsageError, match=message):
        read_protocol(tmp_path / "protocol.json")


def test_what_may_be_left_to_the_trainer_may_be_null(tmp_path: Path, tiny_base: BaseModel) -> None:
    settings = {"learning_rate": None, "patience": None, "stride": None, "train_examples": None, "epochs": 2}
    (tmp_path / "protocol.json").write_text(json.dumps({"settings": settings}))
    protocol = read_protocol(tmp_path / "protocol.json")
    (trial,) = protocol.trials(protocol.experiments["figure1"], tiny_base)
    assert (trial.learning_rate, trial.settings.epochs) == (4e-4, 2)


def test_counts_of_examples_may_have_their_older_names(tmp_path: Path, tiny_base: BaseModel) -> None:
    old = json.dumps(FILE).replace("train_examples", "train_rows")
    assert "scored_train_rows" in old
    trials = []
    for text in (old, json.dumps(FILE)):
        (tmp_path / "protocol.json").write_text(text)
        protocol = read_protocol(tmp_path / "protocol.json")
        trials.append(protocol.trials(protocol.experiments["table3"], tiny_base))
    assert trials[0] == trials[1]


def test_a_protocol_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        read_protocol(tmp_path / "protocol.json")


def test_the_example_is_a_protocol_with_every_method_of_table_3() -> None:
    example = read_protocol(Path(__file__).parents[2] / "examples/reproduce/minilm-l6.json")
    assert example.experiments["table3"].methods == PAPER.experiments["table3"].methods
