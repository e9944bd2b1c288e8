"""The README's code runs as it is printed, with the package as npm packs it, in an empty project."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests import traces
from tests.conftest import MakeDelta
from tests.web.conftest import WEB, RunNode, run

if TYPE_CHECKING:
    from bitfit_export.base_model.loading import BaseModel

pytestmark = pytest.mark.slow

README = WEB / "README.md"
#: What the package may add to a page, minified and compressed, beside onnxruntime-web and the tokenizer.
MOST_BYTES = 30_000
#: The tasks that the README names, as those of another model.
TASKS = {
    "sst2": ("single_label", ("negative", "positive")),
    "rte": ("single_label", ("entailment", "not_entailment")),
    "ewt": ("token", ("NOUN", "VERB", "PROPN")),
    "squad": ("span", ("start", "end")),
}


def code(language: str) -> str:
    (block,) = re.findall(rf"^```{language}\n(.*?)^```", README.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return str(block)


@pytest.fixture(scope="module")
def project(
    package: Path, tmp_path_factory: pytest.TempPathFactory, tiny_base: BaseModel, make_delta: MakeDelta
) -> Path:
    """An empty project with the packed package installed, and a bundle."""
    folder = tmp_path_factory.mktemp("project")
    tarball = run(["npm", "pack", "--silent", "--ignore-scripts", "--pack-destination", str(folder)], cwd=package)
    (folder / "package.json").write_text('{"private": true, "type": "module"}')
    command = ["npm", "install", "--prefer-offline", "--no-audit", "--no-fund", "--ignore-scripts", tarball.strip()]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"npm cannot install the packages: {done.stderr.strip()[-200:]}")
    deltas = {
        name: make_delta(tiny_base, name, labels=labels, problem_type=kind) for name, (kind, labels) in TASKS.items()
    }
    bundle = folder / "minilm-l6"
    bundle.mkdir()
    traces.compile_bundle(tiny_base, deltas, bundle)
    return folder


def test_the_code_for_node(project: Path, node: str) -> None:
    (project / "ask.mjs").write_text(code("js"))
    shown = run([node, "ask.mjs"], cwd=project)
    assert re.search(r"label: '(posi|nega)tive', score: 0\.\d+", shown)
    assert "word: 'Paris'" in shown
    assert "answer: '" in shown


def test_the_page_without_a_bundler(project: Path, run_node: RunNode, chromium: str) -> None:
    (project / "index.html").write_text(code("html"))
    environment = {"BITFIT_CHROMIUM": chromium}
    shown = json.loads(run_node("test/browser/show_page.mjs", project, "#answer", environment=environment))
    assert re.fullmatch(r"(posi|nega)tive 0\.\d{3}", shown["text"])
    assert shown["title"] == "100 %"


def test_a_package_has_what_it_needs_and_no_more(project: Path) -> None:
    installed = project / "node_modules" / "bitfit-runtime"
    found = {str(path.relative_to(installed)) for path in installed.rglob("*") if path.is_file()}
    assert {"package.json", "README.md", "LICENSE", "dist/index.js", "dist/index.d.ts", "dist/worker.js"} <= found
    assert all(re.match(r"dist/|tools/pack\.mjs$|package\.json$|README\.md$|LICENSE$", name) for name in found)
    described = json.loads((installed / "package.json").read_text(encoding="utf-8"))
    assert described["dependencies"].keys() == {"onnxruntime-web"}


def test_what_it_adds_to_a_page(run_node: RunNode) -> None:
    sizes = json.loads(run_node("tools/size.mjs"))
    assert sizes["without_tokenizer"]["gzip"] <= MOST_BYTES
