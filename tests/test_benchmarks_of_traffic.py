"""The benchmarks of requests with real lengths: the requests, the batches that they become, and what is measured."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

pytest.importorskip("torch", reason="needs bitfit-export[export]")


def test_requests_have_the_tasks_and_lengths_in_an_order_that_is_always_the_same(
    script: Callable[[str], ModuleType],
) -> None:
    traffic = script("traffic")
    lengths = {"short": [3, 4], "long": [90]}
    requests = traffic.make_requests(["a", "b", "c"], lengths, 30)
    assert requests == traffic.make_requests(["a", "b", "c"], lengths, 30)
    assert {task: sum(each.task == task for each in requests) for task in "abc"} == {"a": 10, "b": 10, "c": 10}
    assert [each.task for each in requests[:3]] != ["a", "b", "c"]
    assert {(each.task, each.length) for each in requests} == {("a", 3), ("a", 4), ("b", 90), ("c", 3), ("c", 4)}


def test_requests_become_batches_of_mixed_tasks_of_one_task_or_of_one_request(
    script: Callable[[str], ModuleType],
) -> None:
    traffic = script("traffic")
    requests = [traffic.Request(task, length) for length, task in enumerate("abaab", 1)]
    lengths = {
        name: [[each.length for each in batch] for batch in make(requests, 2)]
        for name, make in traffic.BATCHINGS.items()
    }
    assert lengths == {
        "mixed": [[1, 2], [3, 4], [5]],
        "by task": [[1, 3], [2, 5], [4]],
        "alone": [[1], [2], [3], [4], [5]],
    }
    assert traffic.padding_of([requests[:2], requests[4:]]) == pytest.approx(1 / 9)
    ids = traffic.make_ids(requests[:2], ["input_ids", "attention_mask"], 9)
    assert ids["attention_mask"].tolist() == [[1, 0], [1, 1]]
    assert (ids["input_ids"] > 0).tolist() == [[True, False], [True, True]]


def test_lengths_are_of_a_file_or_of_the_glue_dev_sets(
    script: Callable[[str], ModuleType], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    traffic = script("traffic")
    path = tmp_path / "lengths.txt"
    path.write_text("7\n500\n")
    assert traffic.read_lengths(path, None) == {"lengths.txt": [7, 128]}
    path.write_text("7\n0\n")
    with pytest.raises(SystemExit, match="one below 1"):
        traffic.read_lengths(path, None)
    monkeypatch.delenv("BITFIT_DATA", raising=False)
    with pytest.raises(SystemExit, match="pass --lengths FILE"):
        traffic.read_lengths(None, None)
    for task in ("sst2", "cola"):
        _write_data(tmp_path / task, {"sentence": "one two", "label": 1})
    for task in ("mrpc", "rte"):
        _write_data(tmp_path / task, {"sentence1": "one two", "sentence2": "three", "label": 1})
    _write_data(tmp_path / "stsb", {"sentence1": "one two", "sentence2": "three", "label": 1.5})
    monkeypatch.setenv("BITFIT_DATA", str(tmp_path))

    def tokenizer(*columns: list[str], **options: Any) -> dict[str, list[list[str]]]:
        return {"input_ids": [" ".join(texts).split()[: options["max_length"]] for texts in zip(*columns, strict=True)]}

    assert traffic.read_lengths(None, tokenizer) == {"sst2": [2], "mrpc": [3], "cola": [2], "stsb": [3], "rte": [3]}


def _write_data(folder: Path, example: dict[str, Any]) -> None:
    folder.mkdir()
    for split in ("train", "dev"):
        (folder / f"{split}.jsonl").write_text(json.dumps(example) + "\n")


@pytest.fixture
def on_tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The words of a script that measures a tiny model in fp32 with one baseline, and requests of three lengths."""
    from bitfit_export.baselines import exports as baseline

    one_way = "torch, older exporter"  # the quickest
    monkeypatch.setattr(baseline, "BASELINE_WAYS", {one_way: baseline.BASELINE_WAYS[one_way]})
    (tmp_path / "lengths.txt").write_text("3\n5\n9\n")
    words = ["--model", "tiny", "--rounds", "2", "--precisions", "fp32", "--lengths", str(tmp_path / "lengths.txt")]
    return [*words, "--results", str(tmp_path / "results"), "--scratch", str(tmp_path / "scratch")]


@pytest.mark.slow
def test_serving_mix_measures_items_and_memory_of_every_contender(
    script: Callable[[str], ModuleType],
    minilm_folder: Path,
    on_tiny: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    mix = script("serving_mix")
    contenders = {mix.BUNDLE, mix.KEPT, mix.BASELINES, mix.ALONE, mix.PYTORCH}
    mix.main([*on_tiny, "--requests", "16", "--batches", "4", "--threads", "2"])
    measured = json.loads(Path(capsys.readouterr().out.strip()).read_text())["measured"]["fp32"]["4"]
    assert set(measured["contenders"]) == contenders, measured["refused"]
    assert measured["contenders"][mix.BASELINES][mix.TIME_RATIO] == 1.0
    assert measured["contenders"][mix.ALONE]["padding"] == 0.0
    for each in measured["contenders"].values():
        assert each["items per second"] > 0
        assert each["peak memory (MB)"] > 1
    baselines = measured["baselines"]
    assert baselines.keys() == {mix.BASELINES, mix.ALONE}
    assert all(chosen.startswith("torch, older exporter, threads s") for chosen in baselines.values())
    script("report").main(["--results", str(tmp_path / "results"), "--markdown"])
    out = capsys.readouterr().out
    assert "### tiny, fp32, 2 threads, batches of 4: requests of mixed tasks" in out
    assert f"| {mix.BASELINES} (torch, older exporter, threads s" in out


@pytest.mark.slow
def test_every_contender_of_serving_mix_gives_the_same_answers(
    script: Callable[[str], ModuleType], minilm_folder: Path, on_tiny: list[str], tmp_path: Path
) -> None:
    import numpy as np

    mix, traffic, servers = script("serving_mix"), script("traffic"), script("servers")
    bench = script("models").prepare("tiny", tmp_path / "scratch")
    requests = [traffic.Request(task, 7) for task in ("task-0", "task-3", "task-0")]
    contenders, refused = mix.Mix(bench, "fp32", requests, 2, 1, tmp_path)._contenders()
    assert not refused
    answers = {}
    for name, contender in contenders.items():
        serve = servers.open_server(contender.server, 1)
        batches = servers.prepare_batches([[each] for each in requests], bench.base.input_names, 100)
        found = [serve(tasks, ids) for tasks, ids in batches]
        logits = [each["logits"] if isinstance(each, dict) else each for each in found]
        answers[name] = np.array([np.asarray(each).reshape(-1) for each in logits])
    assert not np.allclose(answers[mix.PYTORCH][0], answers[mix.PYTORCH][1], atol=1e-2)
    for name, logits in answers.items():
        np.testing.assert_allclose(logits, answers[mix.PYTORCH], atol=1e-4, err_msg=name)


@pytest.mark.slow
def test_padding_compares_bundles_at_real_lengths_and_without_padding(
    script: Callable[[str], ModuleType], minilm_folder: Path, on_tiny: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    padding = script("padding")
    words = [*on_tiny, "--requests", "8", "--batches", "1,4", "--shapes", "2x8"]
    padding.main(words)
    path = Path(capsys.readouterr().out.strip())
    measured = json.loads(path.read_text())["measured"]["fp32"]
    assert list(measured) == ["no padding, 2x8", "real lengths, batches of 1", "real lengths, batches of 4"]
    assert measured["no padding, 2x8"]["padding"] == measured["real lengths, batches of 1"]["padding"] == 0
    assert measured["real lengths, batches of 4"]["padding"] > 0
    assert all(each[padding.RATIO] > 0 for each in measured.values())
    padding.main(words)
    assert json.loads(path.read_text())["measured"]["fp32"] == measured
    script("report").main(["--results", str(path.parent), "--markdown"])
    assert "### tiny, fp32, 1 thread: padding removed and kept" in capsys.readouterr().out
