"""The runtime for browsers in Chromium: first answer, runs, switches, beside one model per task.

    python benchmarks/web_runtime.py [--visits 7] [--rounds 100]

It needs Node, npm and Chromium, and the package built (`make web`). The bundle is minilm-l6 in int8 with five tasks.
The other side is transformers.js' way: the same model with one task, quantised by ONNX Runtime's own tool, five times.
Everything runs on the page's thread with one thread, from a server on this machine. Writes results/benchmarks/web.json.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from common import Results, make_parser, say
from models import prepare

from bitfit_export.baselines.exports import export_baselines
from bitfit_export.errors import UsageError

ROOT = Path(__file__).resolve().parents[1]
WEB = ROOT / "runtimes" / "web"
MODEL = "minilm-l6"
TASKS = ("sst2", "mrpc", "cola", "stsb", "rte")
WAY = "torch"
CHROMIUM = ("chromium", "chromium-browser", "google-chrome")


def main(words: Sequence[str] | None = None) -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--visits", type=int, default=7, help="of a page whose files are cached (%(default)s)")
    parser.add_argument("--rounds", type=int, default=100, help="of runs with and without a switch (%(default)s)")
    arguments = parser.parse_args(words)
    chromium = next((path for name in CHROMIUM if (path := shutil.which(name))), None)
    if chromium is None or not (WEB / "dist").exists():
        raise UsageError("Chromium or the built package is missing, expected both", hint="run: make web")
    results = Results(
        arguments.results, "web", {"model": MODEL, "visits": arguments.visits, "rounds": arguments.rounds}
    )
    if not results.measured:
        site = make_site(arguments.scratch)
        results.measured |= measure(site, chromium, arguments.visits, arguments.rounds)
        results.measured["chromium"] = version_of(chromium)
        results.measured["package (bytes)"] = json.loads(node(WEB / "tools" / "size.mjs"))
    for name, figures in results.measured.items():
        say(f"{name}: {json.dumps(figures)}")
    print(results.save())


def make_site(scratch: Path) -> Path:
    """Returns the folder that is served: the demo with a bundle, and a model of its own for each task."""
    bench = prepare(MODEL, scratch)
    bundle = bench.bundle(layout="table", precision="int8")
    baselines = export_baselines(bench.base, bench.deltas[bench.task], bench.baseline_folder, "int8", ways=[WAY])
    (model,) = baselines.paths.values()
    site = scratch / "web"
    shutil.rmtree(site, ignore_errors=True)
    node(WEB / "tools" / "build.mjs", "--test")
    node(WEB / "test" / "browser" / "make_site.mjs", bundle, site)
    for index in range(len(TASKS)):
        shutil.copytree(model.parent, site / "models" / str(index))
    return site


def measure(site: Path, chromium: str, visits: int, rounds: int) -> dict[str, Any]:
    environment = {"BITFIT_CHROMIUM": chromium}
    words = (site, ",".join(TASKS), str(visits), str(rounds))
    found: dict[str, Any] = json.loads(node(ROOT / "benchmarks" / "web_page.mjs", *words, environment=environment))
    return found


def node(script: Path, *words: str | Path, environment: dict[str, str] | None = None) -> str:
    command = ["node", str(script), *map(str, words)]
    return subprocess.run(
        command, check=True, stdout=subprocess.PIPE, text=True, env=os.environ | (environment or {})
    ).stdout


def version_of(chromium: str) -> str:
    command = [chromium, "--version", "--no-sandbox"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split(" built")[0].strip()


if __name__ == "__main__":
    main()
