"""The npm package of `runtimes/web`, installed and built once, and the bundles that its tests open."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import pytest

from bitfit_export.bundle import read_manifest
from bitfit_export.files.locks import locked
from tests.conformance.session_cases import save_rows, session_bundle
from tests.conftest import MakeDelta

if TYPE_CHECKING:
    from bitfit_export.base_model.loading import BaseModel

ROOT = Path(__file__).parents[2]
WEB = ROOT / "runtimes" / "web"
NEEDED_NODE = 20
#: Seconds that a worker waits for another one's installation.
PATIENCE = 300

RunNode: TypeAlias = Callable[..., str]


def run(command: Sequence[str | Path], **options: object) -> str:
    """Run a command that must succeed; returns its stdout."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, **options)  # type: ignore[call-overload]
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return str(done.stdout)


@pytest.fixture(scope="session")
def node() -> str:
    """The program node; without one that is new enough, the test is skipped."""
    path = shutil.which("node")
    if path is None or shutil.which("npm") is None:
        pytest.skip("needs Node and npm")
    found = re.match(r"v(\d+)", run([path, "--version"]))
    if found is None or int(found[1]) < NEEDED_NODE:
        pytest.skip(f"needs Node {NEEDED_NODE} or later, found {run([path, '--version']).strip()}")
    return path


@pytest.fixture(scope="session")
def package(node: str) -> Path:
    """`runtimes/web` with what it needs installed, built."""
    (ROOT / "build").mkdir(exist_ok=True)
    with locked(ROOT / "build" / "web.lock", "another worker builds the package", patience=PATIENCE):
        stamp, lock = (
            WEB / "node_modules" / ".bitfit-installed",
            (WEB / "package-lock.json").read_text(encoding="utf-8"),
        )
        if not stamp.exists() or stamp.read_text(encoding="utf-8") != lock:
            done = subprocess.run(["npm", "ci", "--no-audit", "--no-fund"], cwd=WEB, capture_output=True, text=True)
            if done.returncode:
                pytest.skip(f"npm cannot install the packages of runtimes/web: {done.stderr.strip()[-200:]}")
            stamp.write_text(lock, encoding="utf-8")
        sources = [path for folder in ("src", "test", "tools") for path in (WEB / folder).rglob("*") if path.is_file()]
        built = [WEB / "build" / "internals.js", WEB / "dist" / "index.d.ts"]
        newest = max(path.stat().st_mtime for path in sources)
        if any(not path.exists() or path.stat().st_mtime < newest for path in built):
            run([node, "tools/build.mjs", "--test"], cwd=WEB)
    return WEB


@pytest.fixture(scope="session")
def run_node(node: str, package: Path) -> RunNode:
    """Runs a script of the package with node and gives its stdout."""

    def run_script(
        script: str, *words: str | Path, environment: Mapping[str, str] | None = None, stdin: str | None = None
    ) -> str:
        # Node's tests know by a variable that they run in a test, and would then say nothing.
        inherited = {name: value for name, value in os.environ.items() if name != "NODE_TEST_CONTEXT"}
        return run([node, *script.split(), *words], cwd=package, input=stdin, env=inherited | dict(environment or {}))

    return run_script


@pytest.fixture(scope="session")
def chromium() -> str:
    """A Chromium; without one the test is skipped."""
    names = ("chromium", "chromium-browser", "google-chrome")
    found = next((path for name in names if (path := shutil.which(name))), None)
    return found or pytest.skip("needs Chromium: apt-get install chromium")


@pytest.fixture(scope="session")
def session_fixtures(tmp_path_factory: pytest.TempPathFactory, tiny_base: BaseModel, make_delta: MakeDelta) -> Path:
    """A folder with bundles of the tasks of `conformance/sessions`, and the scripts' rows for each: one of each layout
    for ONNX Runtime, and `portable`. The workers of a run share it."""
    own = tmp_path_factory.getbasetemp()
    folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "web-sessions"
    with locked(folder.with_suffix(".lock"), "another worker makes the bundles", patience=PATIENCE):
        if not (folder / "done").exists():
            for name in ("table", "packed", "named", "portable"):
                bundle, rows = folder / name / "bundle", folder / name / "rows"
                rows.mkdir(parents=True)
                layout, target = ("table", name) if name == "portable" else (name, "ort")
                shutil.copytree(session_bundle(tiny_base, make_delta, layout, target=target), bundle)
                save_rows(read_manifest(bundle).layout, rows)
            (folder / "done").touch()
    return folder
