"""`bitfit sweep` and `bitfit reproduce`, as a user gives them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bitfit_export.experiments import Trial
from bitfit_export.training import TrainingSettings
from tests.cli.conftest import Bitfit
from tests.experiments.conftest import write_task

QUICK = ["--pooling", "mean", "--max-length", "16", "--threads", "1", "--epochs", "1"]
METHODS = "full,bitfit,b_q+b_m2,b_m2,b_q,frozen,rand-uniform,rand-row-col,adapters,diff-pruning"


@pytest.fixture
def tasks(workplace: Path) -> Path:
    write_task(workplace / "data" / "mood")
    write_task(workplace / "data" / "size", words=("small", "large"))
    return workplace / "data"


@pytest.mark.slow
def test_a_sweep_says_which_learning_rate_is_the_best(
    bitfit: Bitfit, model_folder: str, tasks: Path, workplace: Path
) -> None:
    words = ["--model", model_folder, "--tasks", "mood,size", "--data", tasks, "--learning-rates", "1e-6,1e-2", *QUICK]
    done = bitfit("sweep", *words, "--seeds", "2")
    assert done.status == 0, done.err
    assert "trial 8 of 8" in done.err
    header, _, *lines = done.out.splitlines()
    assert header.split()[:2] == ["task", "method"]
    assert [line.split()[0] for line in lines] == ["mood", "size"]
    assert all("4 of 4" in line for line in lines)
    summary = json.loads((workplace / "sweeps/tiny-bert/summary.json").read_text())
    means = {}
    for path in (workplace / "sweeps/tiny-bert/trials").glob("mood-*.json"):
        result = json.loads(path.read_text())
        means.setdefault(result["trial"]["settings"]["learning_rate"], []).append(result["metrics"]["accuracy"])
    best = max(sum(values) / len(values) for values in means.values())
    assert summary[0]["score"]["mean"] == pytest.approx(best)
    best_delta = next(word for word in lines[0].split() if word.startswith("sweeps/"))
    assert bitfit("inspect", best_delta).status == 0
    again = bitfit("sweep", *words, "--seeds", "0,1,0")
    assert again.out == done.out
    assert "trial" not in again.err


def test_a_failed_trial_shows_in_the_exit_status(
    bitfit: Bitfit, model_folder: str, tasks: Path, workplace: Path
) -> None:
    words = ["--model", model_folder, "--tasks", "mood", "--data", tasks, "--learning-rates", "1e-2", *QUICK]
    trial = Trial("mood", TrainingSettings(pooling="mean", max_length=16, epochs=1, learning_rate=1e-2))
    in_the_way = workplace / "sweeps" / "tiny-bert" / "work" / trial.name
    in_the_way.parent.mkdir(parents=True)
    in_the_way.touch()
    done = bitfit("sweep", *words, "--methods", "frozen,bitfit")
    assert done.status == 3
    assert "1 trials failed" in done.err
    assert f"{trial.name} cannot be made: File exists" in done.err
    assert [line.split()[:2] for line in done.out.splitlines()[2:]] == [["mood", "frozen"], ["mood", "bitfit"]]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--learning-rates", "fast"], "--learning-rates is 'fast'"),
        (["--learning-rates", "3"], "--learning-rate is 3.0"),
        (["--seeds", "0"], "--seeds is 0"),
        (["--tasks", "a task"], "cannot be a task's name"),
        (["--tasks", "smell"], "expected one file train.*, or a folder smell"),
        (["--tasks", ","], "--tasks names nothing"),
        (["--methods", "bitfit,b_z"], "--bias-terms b_z selects none"),
        (["--threads", "0"], "--threads is 0"),
    ],
)
def test_bad_words_end_a_sweep_before_it_trains(
    bitfit: Bitfit, model_folder: str, tasks: Path, words: list[str], message: str
) -> None:
    done = bitfit("sweep", "--model", model_folder, "--tasks", "mood", "--data", tasks, *QUICK, *words)
    assert (done.status, done.out) == (2, "")
    assert message in done.err


@pytest.mark.slow
def test_table_3_has_a_line_for_each_method_and_says_what_is_missing(
    bitfit: Bitfit, model_folder: str, tasks: Path, workplace: Path
) -> None:
    words = ["table3", "--model", model_folder, "--data", tasks, "--tasks", "mood,size", *QUICK]
    done = bitfit("reproduce", *words, "--seeds", "1", "--methods", METHODS)
    assert done.status == 0, done.err
    assert done.out == (workplace / "results/reproduce/tiny-bert/table3.md").read_text()
    lines = done.out.splitlines()
    assert lines[0] == "| tiny-bert | % Param | mood accuracy | size accuracy | Avg. |"
    found = {cells[0]: cells[1:] for cells in ([cell.strip() for cell in line.strip("|").split("|")] for line in lines)}
    names = "Full-FT,BitFit,b_q, b_m2,b_m2,b_q,Frozen,rand uniform,rand row/col,Adapters,Diff-Prune"
    assert ",".join(list(found)[2:]) == names
    assert found["Frozen"][0] == "0.00%"
    more = bitfit("reproduce", *words, "--seeds", "2", "--methods", "frozen,bitfit", "--report")
    assert "(1 of 2 seeds)" in more.out
    third = bitfit("reproduce", *words, "--seeds", "5,6", "--methods", "frozen", "--report").out.splitlines()[2]
    assert third == "| Frozen | - | not trained | not trained | - |"


def test_data_size_is_about_shares_and_takes_no_number_of_examples(
    bitfit: Bitfit, model_folder: str, tasks: Path
) -> None:
    words = ["--model", model_folder, "--data", tasks, "--tasks", "mood", "--train-examples", "8"]
    done = bitfit("reproduce", "data-size", *words)
    assert done.status == 2
    assert "--train-examples for data-size, which trains on shares" in done.err


@pytest.mark.slow
def test_figures_are_drawn(bitfit: Bitfit, model_folder: str, tasks: Path, workplace: Path) -> None:
    words = ["--model", model_folder, "--data", tasks, "--tasks", "mood", "--seeds", "1", *QUICK]
    assert bitfit("reproduce", "figure1", *words).status == 0
    done = bitfit("reproduce", "figure2", *words, "--train-examples", "8,16")
    assert done.status == 0, done.err
    assert done.out.startswith("|  | training examples | 8 | 16 |\n")
    gap = bitfit("reproduce", "gap", *words)
    assert gap.status == 0
    assert "trial 1 of 1" in gap.err  # full; bitfit is figure 1's
    names = {path.name for path in (workplace / "results/reproduce/tiny-bert").glob("*.*")}
    wanted = {"figure1-mood.png", "figure1-mood.svg", "figure1.md", "figure1.json", "figure2.png", "figure2.svg"}
    assert wanted | {"figure2.md", "figure2.json", "gap.md", "gap.json"} == names
