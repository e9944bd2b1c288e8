"""The package as users get it: a wheel, outside the checkout, without a network, and on a device the runtime alone."""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel, built from a copy of what a checkout has, so that nothing is written into the checkout."""
    source = tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    shutil.copytree(ROOT / "bitfit_export", source / "bitfit_export", ignore=shutil.ignore_patterns("__pycache__"))
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(source)]
    subprocess.run(command, check=True, capture_output=True)
    (path,) = out.glob("*.whl")
    return path


def unpack(wheel: Path, folder: Path) -> Path:
    """What pip does with a pure wheel."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def without_network(command: list[str]) -> list[str]:
    """The command in a network namespace of its own, which has no way out, where this machine has namespaces."""
    probe = subprocess.run(["unshare", "--net", "true"], capture_output=True, check=False)
    return ["unshare", "--net", *command] if probe.returncode == 0 else command


def test_the_wheel_has_the_shipped_deltas_and_types(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert "bitfit_export/py.typed" in names
    for task in ("sst2", "mrpc", "cola", "stsb", "rte"):
        for file in ("bias_deltas.safetensors", "bitfit_config.json", "README.md"):
            assert f"bitfit_export/deltas/minilm-l6/{task}/{file}" in names
    assert not [name for name in names if name.startswith(("tests/", "benchmarks/", "examples/"))]


def test_minilm_is_compiled_outside_the_checkout_without_a_network(wheel: Path, tmp_path: Path) -> None:
    site = unpack(wheel, tmp_path / "site")
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(site), "HOME": str(tmp_path)}
    where = subprocess.run(
        [sys.executable, "-c", "import bitfit_export; print(bitfit_export.__file__)"],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert where.stdout.startswith(str(site))
    export = "from bitfit_export.cli import main_export; raise SystemExit(main_export())"
    words = ["--model", "minilm-l6", "--tasks", "rte"]
    command = without_network([sys.executable, "-c", export, *words])
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "bundles/minilm-l6\n"


def runtime_closure() -> set[str]:
    """The distributions that `pip install bitfit-export`, without an extra, brings."""
    found: set[str] = set()
    todo = ["bitfit-export"]
    while todo:
        name = todo.pop()
        for requirement in importlib.metadata.requires(name) or []:
            match = re.match(r"[A-Za-z0-9._-]+", requirement)
            if match is None or ";" in requirement:  # extras and other platforms
                continue
            if match[0].lower() not in found:
                found.add(match[0].lower())
                todo.append(match[0])
    return found


def test_the_runtime_runs_where_nothing_else_is_installed(wheel: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    """A new virtual environment with the wheel and its own dependencies, linked from this one: no torch, no onnx."""
    venv.create(tmp_path / "venv", with_pip=False)
    (site,) = (tmp_path / "venv").glob("lib/python*/site-packages")
    unpack(wheel, site)
    for name in runtime_closure():
        for file in importlib.metadata.files(name) or []:
            top = file.parts[0]
            if top not in ("..", "__pycache__") and not (site / top).exists():
                (site / top).symlink_to(Path(str(importlib.metadata.distribution(name).locate_file(top))))
    installed = {path.name for path in site.iterdir()}
    assert "onnxruntime" in installed
    assert not installed & {"torch", "onnx", "transformers", "onnx_graphsurgeon", "safetensors"}
    words = ["run", str(tiny_bundle), "--task", "two_way", "--text", "a text"]
    run = f"from bitfit_export.cli import main; raise SystemExit(main({words!r}))"
    done = subprocess.run(
        [str(tmp_path / "venv/bin/python"), "-c", run], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["label"] in ("negative", "positive")
    words = ["export", "--model", "minilm-l6", "--tasks", "rte"]
    export = f"from bitfit_export.cli import main; raise SystemExit(main({words!r}))"
    missing = subprocess.run(
        [str(tmp_path / "venv/bin/python"), "-c", export], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert missing.returncode == 2
    assert "hint: pip install 'bitfit-export[export]'" in missing.stderr
