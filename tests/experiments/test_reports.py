"""Tables and figures of results that are made up, with values that are computed by hand."""

from __future__ import annotations

import json
from typing import Any

import pytest

from bitfit_export.experiments import Trial, TrialResult, summarise
from bitfit_export.experiments.reproduce import Experiment, Report, Round
from bitfit_export.experiments.reproduce.bias_changes import mean_by_term, report_changes
from bitfit_export.experiments.reproduce.context import Context, method_title
from bitfit_export.experiments.reproduce.learning_curves import report_shares, report_sizes
from bitfit_export.experiments.reproduce.paper_tables import report_gap, report_methods
from bitfit_export.experiments.trial import parse_method
from bitfit_export.files import canonical_json
from bitfit_export.training import TrainingSettings

METRICS = {"mrpc": "f1", "mnli": "accuracy", "squad": "f1"}


def make_trial(task: str, method: str, seed: int, rate: float = 1e-3, **more: Any) -> Trial:
    name, terms = parse_method(method)
    return Trial(task, TrainingSettings(method=name, bias_terms=terms, seed=seed, learning_rate=rate), **more)


def make_result(trial: Trial, score: float, **more: Any) -> TrialResult:
    metric = METRICS.get(trial.task, "accuracy")
    values: dict[str, Any] = {
        "metrics": {metric: score},
        "trained_parameters": (1100 if trial.method == "bitfit" else 0, 770),
        "bias_changes": {},
        "history": [],
    }
    return TrialResult(
        trial=trial,
        base_model="org/base",
        base_digest="0" * 64,
        base_parameters=1_000_000,
        metric=metric,
        best_epoch=1,
        record={},
        **values | more,
    )


def experiment(
    methods: tuple[str, ...], tasks: tuple[str, ...], seeds: tuple[int, ...] = (0, 1, 2), **more: Any
) -> Experiment:
    return Experiment(methods, (Round(tasks, seeds),), **more)


def cells(report: Report) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in report.text.splitlines()]


def test_a_table_has_mean_and_deviation_in_percent() -> None:
    """0.80, 0.82 and 0.87: their mean is 0.83, and their deviation sqrt((9 + 1 + 16) / 2) = 3.6 hundredths."""
    trials = [make_trial("mrpc", "bitfit", seed) for seed in range(3)]
    results = [make_result(trial, score) for trial, score in zip(trials, (0.80, 0.82, 0.87), strict=True)]
    report = report_methods(Context("tiny", experiment(("bitfit",), ("mrpc",)), trials, results))
    assert cells(report) == [["tiny", "% Param", "MRPC F1"], ["---"] * 3, ["BitFit", "0.11%", "83.0 ± 3.6"]]
    (line,) = report.data["rows"]
    assert line["cells"]["MRPC F1"]["mean"] == pytest.approx(0.83)
    assert line["cells"]["MRPC F1"]["std"] == pytest.approx(0.0013**0.5)


def test_what_has_no_result_is_said_and_has_no_average() -> None:
    trials = [make_trial(task, "bitfit", seed) for task in ("mrpc", "rte", "cola") for seed in range(3)]
    results = [make_result(trials[0], 0.8), make_result(trials[1], 0.9)]
    context = Context(
        "tiny", experiment(("bitfit",), ("mrpc", "rte", "cola")), trials, results, frozenset({trials[3].name})
    )
    _, _, line = cells(report_methods(context))
    assert line == ["BitFit", "0.11%", "85.0 ± 7.1 (2 of 3 seeds)", "failed", "not trained", "-"]


def test_the_average_is_over_the_columns() -> None:
    trials = [make_trial(task, "full", 0) for task in ("mrpc", "rte")]
    results = [make_result(trials[0], 0.8, trained_parameters=(10**6, 5)), make_result(trials[1], 0.6)]
    _, _, line = cells(report_methods(Context("tiny", experiment(("full",), ("mrpc", "rte"), (0,)), trials, results)))
    assert line == ["Full-FT", "100%", "80.0", "60.0", "70.0"]


def test_the_learning_rate_with_the_best_mean_is_reported() -> None:
    scores = {(1e-3, 0): 0.9, (1e-3, 1): 0.5, (1e-4, 0): 0.8, (1e-4, 1): 0.7}
    trials = [make_trial("mrpc", "bitfit", seed, rate) for rate, seed in scores]
    results = [make_result(trial, score) for trial, score in zip(trials, scores.values(), strict=True)]
    context = Context("tiny", experiment(("bitfit",), ("mrpc",), (0, 1)), trials, results)
    cell = context.cell("mrpc", "bitfit").as_json()
    assert (cell["learning_rate"], cell["mean"], cell["seeds"]) == (1e-4, 0.75, [0, 1])
    (summary,) = summarise(trials, results)
    assert summary.score is not None
    assert (summary.score.learning_rate, summary.done, summary.wanted) == (1e-4, 4, 4)
    assert summary.best_trial == trials[0].name


def test_mnli_has_two_columns() -> None:
    trial = make_trial("mnli", "bitfit", 0)
    result = make_result(trial, 0.8, metrics={"accuracy": 0.8, "mismatched_accuracy": 0.7})
    header, _, line = cells(
        report_methods(Context("tiny", experiment(("bitfit",), ("mnli",), (0,)), [trial], [result]))
    )
    assert header == ["tiny", "% Param", "MNLI accuracy", "MNLI-mm accuracy", "Avg."]
    assert line == ["BitFit", "0.11%", "80.0", "70.0", "75.0"]


def test_mnli_without_its_mismatched_genres_has_one_column() -> None:
    trial = make_trial("mnli", "bitfit", 0)
    context = Context("tiny", experiment(("bitfit",), ("mnli",), (0,)), [trial], [make_result(trial, 0.8)])
    assert cells(report_methods(context))[0] == ["tiny", "% Param", "MNLI accuracy"]


def test_a_gap_is_the_training_rows_less_the_validation_examples() -> None:
    trials = [make_trial("mrpc", "full", seed) for seed in (0, 1)]
    metrics = [{"f1": 0.8, "train_f1": 0.9}, {"f1": 0.7, "train_f1": 1.0}]
    results = [make_result(trial, each["f1"], metrics=each) for trial, each in zip(trials, metrics, strict=True)]
    context = Context("tiny", experiment(("full", "bitfit"), ("mrpc",), (0, 1)), trials, results)
    _, _, full, bitfit = cells(report_gap(context))
    assert full == ["MRPC F1", "Full-FT", "95.0", "75.0 ± 7.1", "20.0 ± 14.1"]
    assert bitfit == ["MRPC F1", "BitFit", "-", "not trained", "-"]


CHANGES = {
    "embeddings.LayerNorm.bias": 9.0,
    "encoder.layer.0.attention.self.query.bias": 0.2,
    "encoder.layer.10.attention.self.query.bias": 0.4,
    "encoder.layer.2.attention.self.query.bias": 0.3,
    "encoder.layer.0.attention.self.key.bias": 0.0,
}


def test_changes_are_means_over_seeds_and_layers() -> None:
    trials = [make_trial("rte", "bitfit", seed) for seed in (0, 1)]
    more = {name: 3 * change for name, change in CHANGES.items()}
    results = [make_result(trials[0], 0.5, bias_changes=CHANGES), make_result(trials[1], 0.5, bias_changes=more)]
    report = report_changes(Context("tiny", experiment(("bitfit",), ("rte", "mrpc"), (0, 1)), trials, results))
    header, _, rte, mrpc = cells(report)
    assert header[:3] == ["change on tiny, x 1000", "b_q", "b_k"]
    assert rte[:4] == ["RTE", "600", "0", "not trained"]
    assert set(mrpc[1:]) == {"not trained"}
    assert report.data["tasks"]["rte"]["changes"]["encoder.layer.2.attention.self.query.bias"] == pytest.approx(0.6)
    assert list(report.plots) == ["-rte"]
    assert report.plots["-rte"]("png").startswith(b"\x89PNG")
    drawn = report.plots["-rte"]("svg")
    assert drawn == report.plots["-rte"]("svg")
    assert b"dc:date" not in drawn
    assert mean_by_term(CHANGES)["b_q"] == pytest.approx(0.3)


def test_changes_of_some_bias_terms_have_a_line_of_their_own() -> None:
    trials = [make_trial("rte", method, 0) for method in ("bitfit", "b_q")]
    results = [make_result(trials[1], 0.5, bias_changes=CHANGES)]
    report = report_changes(Context("tiny", experiment(("bitfit", "b_q"), ("rte",), (0,)), trials, results))
    assert [line[0] for line in cells(report)[2:]] == ["RTE, BitFit", "RTE, b_q"]
    assert list(report.plots) == ["-rte-b_q"]


def test_bias_terms_keep_the_models_order_in_a_file() -> None:
    result = make_result(make_trial("rte", "bitfit", 0), 0.5, bias_changes=CHANGES)
    again = TrialResult.from_json(json.loads(canonical_json(result.as_json())))
    assert again == result
    assert list(again.bias_changes) == list(CHANGES)


def test_squad_by_the_number_of_training_examples() -> None:
    trials = [
        make_trial("squad", method, 0, train_examples=size) for method in ("bitfit", "full") for size in (500, 1000)
    ]
    results = [make_result(trials[0], 0.5, metrics={"f1": 0.5, "exact_match": 0.25})]
    report = report_sizes(
        Context("tiny", experiment(("bitfit", "full"), ("squad",), (0,), sizes=(500, 1000)), trials, results)
    )
    assert cells(report)[2:] == [
        ["SQuAD exact match", "BitFit", "25.0", "not trained"],
        ["SQuAD exact match", "Full-FT", "not trained", "not trained"],
        ["SQuAD F1", "BitFit", "50.0", "not trained"],
        ["SQuAD F1", "Full-FT", "not trained", "not trained"],
    ]
    assert report.plots[""]("png").startswith(b"\x89PNG")


def test_another_task_by_the_number_of_training_rows_has_its_own_metric() -> None:
    trial = make_trial("mrpc", "bitfit", 0, train_examples=500)
    plan = experiment(("bitfit",), ("mrpc",), (0,), sizes=(500,))
    report = report_sizes(Context("tiny", plan, [trial], [make_result(trial, 0.5)]))
    assert cells(report)[2:] == [["MRPC F1", "BitFit", "50.0"]]


def test_every_method_has_a_line_however_many_there_are() -> None:
    methods = ("full", "bitfit", "b_q", "b_m2", "frozen", "rand-uniform", "adapters")
    trials = [make_trial("squad", method, 0, train_examples=500) for method in methods]
    results = [make_result(trial, 0.5, metrics={"f1": 0.5, "exact_match": 0.25}) for trial in trials]
    plan = experiment(methods, ("squad",), (0,), sizes=(500,))
    drawn = report_sizes(Context("tiny", plan, trials, results)).plots[""]("svg").decode()
    assert all(f"<!-- {method_title(method)} -->" in drawn for method in methods)


def test_without_a_result_there_is_nothing_to_draw() -> None:
    empty = Context("tiny", experiment(("bitfit",), ("squad",), (0,), sizes=(500,)), [], [])
    assert report_sizes(empty).plots == {}


def test_a_task_by_the_share_of_training_rows_and_by_epoch() -> None:
    history = [[{"f1": 0.4}, {"f1": 0.6}], [{"f1": 0.6}, {"f1": 0.8}]]
    whole = [make_trial("mrpc", "bitfit", seed) for seed in (0, 1)]
    third = [make_trial("mrpc", "bitfit", seed, train_share=0.3) for seed in (0, 1)]
    results = [make_result(trial, 0.7, history=each) for trial, each in zip(whole, history, strict=True)]
    results += [make_result(trial, score) for trial, score in zip(third, (0.5, 0.6), strict=True)]
    plan = experiment(("bitfit",), ("mrpc",), (0, 1), shares=(0.3, 1.0))
    report = report_shares(Context("tiny", plan, [*third, *whole], results))
    assert cells(report) == [
        ["", "share of the training examples", "30%", "100%"],
        ["---"] * 4,
        ["MRPC F1", "BitFit", "55.0 ± 7.1", "70.0 ± 0.0"],
    ]
    assert report.data["rows"][0]["by_epoch"] == pytest.approx([0.5, 0.7])
    assert set(report.plots) == {"", "-time"}
