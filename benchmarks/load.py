"""How long a model takes from its files to its first answer, and how much memory: bundles and the fastest baseline.

    python benchmarks/load.py --model bert-base [--rounds 5]

Each is opened in a process of its own, in turn, after a round that brings the files into memory and finds the fastest
baseline model. Figures are medians, ratios medians of the rounds' own. Two processes with the same model then say what
they share. Writes results/benchmarks/load-<model>.json.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from common import Results, make_parser, say
from models import MODELS, Workbench, prepare
from processes import Held, run_json

from bitfit_export.baselines.exports import export_baselines
from bitfit_export.errors import BitfitError

_SCRIPT = "open_once.py"
_BUNDLE = "bundle"
_PREPACKED = "bundle, prepacked"
_BASELINE = "baseline"


def main(words: Sequence[str] | None = None) -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--model", choices=MODELS, default="minilm-l6")
    parser.add_argument("--precisions", default="fp32,int8", help="(%(default)s)")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args(words)
    results = Results(
        arguments.results, f"load-{arguments.model}", {"model": arguments.model, "rounds": arguments.rounds}
    )
    bench = prepare(arguments.model, arguments.scratch)
    for precision in arguments.precisions.split(","):
        if precision not in results.measured:
            results.measured[precision] = measure(bench, precision, arguments.rounds)
            results.save()
            say(f"{bench.name} {precision}: {results.measured[precision]}")
    print(results.save())


def measure(bench: Workbench, precision: str, rounds: int) -> dict[str, Any]:
    """Seconds and memory of each, in one precision."""
    bundles, refused = _bundles(bench, precision)
    baseline = export_baselines(bench.base, bench.deltas[bench.task], bench.baseline_folder, precision)
    tokenizer = bench.bundle(layout="table", precision="fp32") / "tokenizer.json"
    ways = {way: ["baseline", str(path), str(tokenizer)] for way, path in baseline.paths.items()}
    first = {way: run_json(_SCRIPT, *words) for way, words in ways.items()}
    first = {way: run_json(_SCRIPT, *words)["seconds"] for way, words in ways.items()}
    fastest = min(first, key=lambda way: float(first[way]))
    contenders = {_BASELINE: ways[fastest]}
    contenders |= {name: ["bundle", str(folder), bench.task] for name, folder in bundles.items()}
    for words in contenders.values():
        run_json(_SCRIPT, *words)
    opened: dict[str, list[dict[str, float]]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, words in contenders.items():
            opened[name].append(run_json(_SCRIPT, *words))
    sizes = {name: _size(folder) for name, folder in bundles.items()} | {
        _BASELINE: _size(baseline.paths[fastest].parent)
    }
    described = {name: _describe(opened[name], opened[_BASELINE], sizes[name]) for name in contenders}
    for name, words in contenders.items():
        described[name] |= _share(words)
    return {"fastest baseline": fastest, "opened": described, "refused": {**refused, **baseline.refused}}


def _bundles(bench: Workbench, precision: str) -> tuple[dict[str, Path], dict[str, str]]:
    bundles: dict[str, Path] = {}
    refused: dict[str, str] = {}
    for name, options in ((_BUNDLE, {}), (_PREPACKED, {"prepack": True})):
        try:
            bundles[name] = bench.bundle(layout="table", precision=precision, **options)
        except BitfitError as error:
            refused[name] = error.message
    return bundles, refused


def _describe(
    opened: Sequence[Mapping[str, float]], baseline: Sequence[Mapping[str, float]], size: int
) -> dict[str, float]:
    def median(key: str) -> float:
        return statistics.median(each[key] for each in opened)

    def ratio(key: str) -> float:
        return statistics.median(one[key] / two[key] for one, two in zip(opened, baseline, strict=True))

    growth = statistics.median(each["peak"] - each["before"] for each in opened)
    return {
        "seconds": median("seconds"),
        "seconds / baseline": ratio("seconds"),
        "peak memory (MB)": median("peak") / 1e6,
        "peak memory / baseline": ratio("peak"),
        "files (MB)": size / 1e6,
        "growth of memory / files": growth / size,
    }


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("model.onnx*"))


def _share(words: Sequence[str]) -> dict[str, float]:
    """The memory of one process with the model, and of two at a time."""
    totals = []
    for count in (1, 2):
        held = [Held(_SCRIPT, *words, "--hold") for _ in range(count)]
        for each in held:
            each.read()
        for each in held:
            each.go_on()
        totals.append(sum(each.read()["share"] for each in held))
        for each in held:
            each.end()
    return {"one process (MB)": totals[0] / 1e6, "two processes (MB)": totals[1] / 1e6}


if __name__ == "__main__":
    main()
