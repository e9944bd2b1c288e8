"""Trials have names that last, and survive being written down."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from bitfit_export.errors import DataError, UsageError
from bitfit_export.experiments import Trial, TrialResult
from bitfit_export.experiments.trial import method_label, parse_method
from bitfit_export.files import canonical_json
from bitfit_export.training import TrainingSettings

SETTINGS = TrainingSettings(learning_rate=1e-3, epochs=3, seed=2, schedule="constant", warmup=0.0)


def test_a_name_says_what_differs() -> None:
    terms = TrainingSettings(bias_terms=("b_q", "b_m2"), learning_rate=1e-3, seed=2)
    assert Trial("mrpc", SETTINGS).name.startswith("mrpc-bitfit-lr0.001-seed2-")
    assert Trial("mrpc", terms, train_examples=500).name.startswith("mrpc-b_q+b_m2-lr0.001-500rows-seed2-")
    assert Trial("mrpc", SETTINGS, train_share=0.3).name.startswith("mrpc-bitfit-lr0.001-0.3share-seed2-")


def test_a_name_is_the_same_tomorrow() -> None:
    """Results are found by it; the digest is of {"epochs": 3} as canonical JSON, by sha256sum."""
    assert Trial("mrpc", SETTINGS).name == "mrpc-bitfit-lr0.001-seed2-5bb27651"


def test_a_default_that_changes_takes_no_name_from_an_older_training() -> None:
    """The first release's schedule was constant: its trials keep their names, and those of the new default differ."""
    now = Trial("mrpc", TrainingSettings(learning_rate=1e-3, epochs=3, seed=2))
    assert (now.settings.schedule, now.settings.warmup) == ("linear", 0.1)
    assert now.name != Trial("mrpc", SETTINGS).name
    assert now.settings.unusual().keys() == {"learning_rate", "epochs", "seed", "schedule", "warmup"}


STORED = sorted((Path(__file__).parents[2] / "results" / "reproduce" / "minilm-l6" / "trials").glob("*.json"))


def test_the_trials_of_the_repository_are_found_by_their_names() -> None:
    assert STORED
    for path in STORED:
        assert Trial.from_json(json.loads(path.read_bytes())["trial"]).name == path.stem


def test_counts_of_examples_have_the_first_release_s_names_in_files() -> None:
    path = next(path for path in STORED if path.stem.startswith("ewt-bitfit-lr0.001-3000rows-"))
    written = json.loads(path.read_bytes())
    assert (written["trial"]["train_rows"], written["trial"]["validation_rows"]) == (3000, 1000)
    trial = TrialResult.from_json(written).trial
    assert (trial.train_examples, trial.validation_examples, trial.scored_train_examples) == (3000, 1000, 500)


def test_the_results_of_the_repository_are_written_as_they_were_read() -> None:
    for path in STORED:
        data = path.read_bytes()
        assert canonical_json(TrialResult.from_json(json.loads(data)).as_json()) == data


@pytest.mark.parametrize(
    "other",
    [
        Trial("mrpc", replace(SETTINGS, epochs=4)),
        Trial("mrpc", replace(SETTINGS, schedule="linear")),
        Trial("mrpc", replace(SETTINGS, warmup=0.1)),
        Trial("mrpc", replace(SETTINGS, bf16=True)),
        Trial("mrpc", replace(SETTINGS, stride=0)),
        Trial("mrpc", replace(SETTINGS, l0_penalty=0.0)),
        Trial("mrpc", SETTINGS, validation_examples=10),
        Trial("mrpc", SETTINGS, scored_train_examples=10),
    ],
)
def test_trials_that_differ_have_names_that_differ(other: Trial) -> None:
    assert other.name != Trial("mrpc", SETTINGS).name


def test_a_trial_comes_back_from_json() -> None:
    trial = Trial("mrpc", TrainingSettings(bias_terms=("b_q",), learning_rate=2e-4), train_share=0.5)
    assert Trial.from_json(json.loads(json.dumps(trial.as_json()))) == trial


def test_settings_that_came_later_are_as_trainings_were_before() -> None:
    written = Trial("mrpc", SETTINGS).as_json()
    for name in ("bf16", "schedule", "warmup"):
        del written["settings"][name]
    assert Trial.from_json(written) == Trial("mrpc", SETTINGS)


def test_what_is_unknown_is_refused() -> None:
    written = Trial("mrpc", SETTINGS).as_json()
    written["settings"]["charm"] = 1
    with pytest.raises(DataError, match="charm"):
        Trial.from_json(written)


@pytest.mark.parametrize("share", [0.0, -0.5, 1.5])
def test_a_share_is_a_share(share: float) -> None:
    with pytest.raises(UsageError, match="share"):
        Trial("mrpc", SETTINGS, train_share=share)
    Trial("mrpc", SETTINGS, train_share=1.0)


@pytest.mark.parametrize("label", ["bitfit", "full", "frozen", "b_q", "b_q+b_m2"])
def test_a_method_is_read_as_it_is_written(label: str) -> None:
    assert method_label(*parse_method(label)) == label
