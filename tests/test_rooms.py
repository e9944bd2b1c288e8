"""The rooms of the package: imports run one way, and some rooms do without some packages."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "bitfit_export"
#: Each room, and the rooms before it. A room imports from those that it names, and from nothing else.
ROOMS: dict[str, set[str]] = {
    "errors": set(),
    "files": {"errors"},
    "cluster": {"errors"},
    "metrics": set(),
    "bundle": {"errors", "files"},
    "accelerators": {"errors"},
    "signing": {"bundle", "errors", "files"},
    "base_model": {"bundle", "errors"},
    "delta": {"base_model", "bundle", "errors", "files"},
    "reference": {"base_model", "delta", "errors"},
    "compiler": {"accelerators", "base_model", "bundle", "delta", "errors", "files"},
    "training": {"base_model", "bundle", "compiler", "delta", "errors", "files", "metrics", "reference"},
    "runtime": {"accelerators", "bundle", "errors", "files", "metrics", "signing"},
    "serving": {"bundle", "cluster", "errors", "files", "runtime"},
    "verification": {"base_model", "bundle", "delta", "errors", "reference", "runtime"},
    "interop": {"base_model", "bundle", "delta", "errors", "files", "reference", "verification"},
    "baselines": {"base_model", "bundle", "delta", "errors", "files", "reference", "runtime"},
    "experiments": {"base_model", "bundle", "cluster", "delta", "errors", "files", "training"},
}
#: Above all rooms.
FRONT = {"cli", "__main__", "__init__"}
#: What a device must have to run a bundle.
RUNTIME_PACKAGES = {"bitfit_export", "google_crc32c", "numpy", "onnxruntime", "tokenizers"}


@cache
def modules() -> dict[str, Path]:
    """Dotted name, without the package's -> file."""
    files = [path for path in PACKAGE.rglob("*.py") if "deltas" not in path.relative_to(PACKAGE).parts[:1]]
    return {".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__"): path for path in files}


def room_of(module: str) -> str:
    return module.split(".")[0] or "__init__"


def imports(path: Path) -> Iterator[str]:
    """What a file imports when it runs, also inside functions; not what only a type checker reads."""
    tree = ast.parse(path.read_text())
    skipped = {
        id(node)
        for guard in ast.walk(tree)
        if isinstance(guard, ast.If) and ast.unparse(guard.test) == "TYPE_CHECKING"
        for node in ast.walk(guard)
    }
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                submodule = f"{node.module}.{alias.name}"
                yield submodule if submodule.removeprefix("bitfit_export.") in modules() else node.module


def own_imports(path: Path) -> set[str]:
    names = {name.removeprefix("bitfit_export.") for name in imports(path) if name.startswith("bitfit_export.")}
    return {name for name in names if name in modules()}


@pytest.mark.parametrize("room", sorted(ROOMS))
def test_a_room_imports_from_the_rooms_before_it_alone(room: str) -> None:
    for module, path in modules().items():
        if room_of(module) == room:
            found = {room_of(name) for name in own_imports(path)} - {room}
            assert found <= ROOMS[room], module


def test_training_reads_the_compiler_in_the_engine_that_runs_its_programs_alone() -> None:
    readers = {
        module
        for module, path in modules().items()
        if room_of(module) == "training" and any(room_of(name) == "compiler" for name in own_imports(path))
    }
    assert readers == {"training.engines"}


def test_every_room_has_its_place_after_the_rooms_that_it_reads() -> None:
    assert {room_of(module) for module in modules()} == ROOMS.keys() | FRONT
    before: set[str] = set()
    for room, read in ROOMS.items():
        assert read <= before, room
        before.add(room)


def test_only_the_command_line_knows_the_experiments() -> None:
    readers = {
        room_of(module)
        for module, path in modules().items()
        for name in own_imports(path)
        if room_of(name) == "experiments"
    }
    assert readers == {"cli", "experiments"}


@pytest.mark.parametrize("part", ["frontend", "graph"])
def test_what_passes_build_on_knows_no_pass(part: str) -> None:
    for module, path in modules().items():
        if module.startswith(f"compiler.{part}"):
            assert not any(name.startswith("compiler.passes") for name in own_imports(path)), module


def test_no_two_modules_import_each_other() -> None:
    graph = {module: own_imports(path) - {module} for module, path in modules().items()}
    left = dict(graph)
    while True:
        ends = {module for module, read in left.items() if not read & left.keys()}
        if not ends:
            break
        left = {module: read for module, read in left.items() if module not in ends}
    assert not left, "modules in a circle, or reading one"


@pytest.mark.parametrize("room", ["errors", "files", "bundle", "accelerators", "runtime"])
def test_what_a_device_runs_needs_few_packages(room: str) -> None:
    for module, path in modules().items():
        if room_of(module) == room:
            packages = {name.split(".")[0] for name in imports(path)} - sys.stdlib_module_names
            assert packages <= RUNTIME_PACKAGES, module
