"""The C++ library and its programs, built once, and bundles of every layout for them to run.

Builds lie in `build/cpp/` of the repository, which git ignores, so what has not changed is not compiled again.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import google_crc32c
import numpy as np
import pytest

from bitfit_export.bundle import decode_row, encode_row
from bitfit_export.runtime import BiasSession
from bitfit_export.runtime.learning import BiasTrainer
from tests import traces
from tests.conftest import MakeDelta
from tests.cpp.learning import Learn, learn

if TYPE_CHECKING:
    from bitfit_export.base_model.loading import BaseModel
    from bitfit_export.delta import TaskDelta

ROOT = Path(__file__).parents[2]
CPP = ROOT / "runtimes" / "cpp"
BUILD = ROOT / "build" / "cpp"
#: Beside this interpreter where the package `cmake` is installed, as `build.sh` looks for it.
CMAKE = Path(shutil.which("cmake", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}") or "cmake")
#: What runs with sanitizers besides the fuzz targets: the sessions and engines that tests drive.
SANITIZED = ("session_test", "engine_test")
#: What Clang builds, with its sanitizers.
CLANG_TARGETS = ("row_fuzzer", "manifest_fuzzer", "model_fuzzer", "tokenizer_fuzzer", *SANITIZED)

#: The kinds of bundles that `get_bundle` makes, those that run one task at a time, and the tasks in each.
LAYOUTS = ["table", "fp16 rows", "packed", "static", "named", "overridable"]
ONE_AT_A_TIME = ["packed", "static", "named", "overridable"]
SENTENCE_TASKS = ["two_way", "three_way", "topics", "score"]
TOKEN_TASKS = ["tags", "answers"]

TEXTS = ["A warm, funny film.", "no", "Two hours that nobody will give back: " + "long " * 30, "naïve 日本 [SEP]"]
QUESTION, CONTEXT = "Who lives here?", "Ada Lovelace lives here, in a small house. " * 12

Run: TypeAlias = Callable[..., subprocess.CompletedProcess[str]]
GetBundle: TypeAlias = Callable[[str], Path]
OpenBundle: TypeAlias = Callable[[str | Path], "Driver"]


def run(command: Sequence[str | Path], **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a command that must succeed."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, **options)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done


def cpp_run(programs: Path, *arguments: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run([programs / "bitfit_run", *arguments], capture_output=True, text=True, check=False, **options)


def assert_same_lines(found: str, expected: str, tolerance: float = 1e-5) -> None:
    """The same JSON, byte by byte but for the digits of scores."""
    score = re.compile(r'("score": )(-?[0-9.e-]+)')
    assert score.sub(r"\1", found) == score.sub(r"\1", expected)
    np.testing.assert_allclose(
        [float(value) for _, value in score.findall(found)],
        [float(value) for _, value in score.findall(expected)],
        rtol=0,
        atol=tolerance,
    )


@functools.cache
def build(preset: str, *targets: str) -> Path:
    """Build all or some targets with a preset of CMakePresets.json; gives the build folder. Processes wait in turn."""
    command = [CPP / "tools" / "build.sh", preset, *targets]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"PYTHON": sys.executable})
    if done.returncode == 3:
        pytest.skip(done.stderr.strip().splitlines()[-1])
    assert done.returncode == 0, done.stdout + done.stderr
    return BUILD / preset


def build_by_clang() -> Path:
    """The folder of what runs with Clang's sanitizers."""
    return build("fuzz", *CLANG_TARGETS)


def build_sanitized() -> Path:
    """The folder of a build with both sanitizers for memory: by Clang where it is installed, or else by g++."""
    return build_by_clang() if shutil.which("clang++") else build("asan", *SANITIZED)


@pytest.fixture(scope="session")
def programs() -> Path:
    """The folder of a release build."""
    return build("default")


class Driver:
    """A C++ session in a process of its own, which is told what to do in JSON."""

    def __init__(self, program: Path, bundle: Path, *options: str) -> None:
        self._process = subprocess.Popen(
            [program, "drive", bundle, *options], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.pid = self._process.pid
        self.opened = self._answer()

    def __call__(self, do: str, **command: Any) -> Any:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"do": do, **command}) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def close(self) -> None:
        """End the process; a sanitizer that found something makes it fail."""
        self._process.communicate()
        assert self._process.returncode == (0 if self.opened["code"] == "ok" else 1)

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the program ended"
        return json.loads(line)


@pytest.fixture(scope="session")
def cpp_deltas(tiny_base: BaseModel, make_delta: MakeDelta) -> dict[str, TaskDelta]:
    """Tasks of every problem type, with heads of different widths."""
    return {
        "two_way": make_delta(tiny_base, "two_way", labels=("negative", "positive"), pooling="mean", seed=1),
        "three_way": make_delta(tiny_base, "three_way", labels=("a", "b", "c"), activation="tanh", seed=2),
        "topics": make_delta(tiny_base, "topics", labels=tuple("wxyz"), problem_type="multi_label", seed=3),
        "score": make_delta(tiny_base, "score", labels=(), problem_type="regression", pooling="cls", seed=4),
        "tags": make_delta(tiny_base, "tags", labels=tuple("ABCDE"), problem_type="token", seed=5),
        "answers": make_delta(tiny_base, "answers", labels=("start", "end"), problem_type="span", seed=6),
    }


@pytest.fixture(scope="session")
def get_bundle(tiny_base: BaseModel, cpp_deltas: dict[str, TaskDelta]) -> GetBundle:
    """A bundle of these tasks, by what is special about it. Tests must not write into it."""
    from bitfit_export.compiler import CompileOptions

    options = {
        "table": CompileOptions(),
        "fp16 rows": CompileOptions(row_dtype="fp16"),
        "packed": CompileOptions(layout="packed"),
        "static": CompileOptions(layout="packed", static_shape=(2, 16)),
        "named": CompileOptions(layout="named"),
        "overridable": CompileOptions(layout="named", overridable=True),
    }

    return functools.cache(lambda kind: traces.bundle_of(tiny_base, cpp_deltas, options[kind]))


@pytest.fixture(scope="session")
def open_session(programs: Path, get_bundle: GetBundle) -> Iterator[OpenBundle]:
    """Open a C++ session on a bundle, given by its kind or its folder."""
    opened: list[Driver] = []

    def start(bundle: str | Path) -> Driver:
        folder = get_bundle(bundle) if isinstance(bundle, str) else bundle
        opened.append(Driver(programs / "tests" / "session_test", folder))
        return opened[-1]

    yield start
    for driver in opened:
        driver.close()


@pytest.fixture(scope="session")
def ask(programs: Path) -> Callable[..., list[Any]]:
    """Run `files_test`. Returns a JSON value per line."""

    def ask(*arguments: str | Path, **options: Any) -> list[Any]:
        done = run([programs / "tests" / "files_test", *arguments], timeout=60, **options)
        return [json.loads(line) for line in done.stdout.split("\n")[:-1]]

    return ask


@pytest.fixture
def bundle_copy(get_bundle: GetBundle, tmp_path: Path) -> Path:
    return Path(shutil.copytree(get_bundle("table"), tmp_path / "bundle"))


@pytest.fixture
def open_bundle(programs: Path, bundle_copy: Path) -> Callable[..., dict[str, Any]]:
    """Open `bundle_copy`. Returns the status."""

    def open_bundle(*options: str) -> dict[str, Any]:
        done = subprocess.run(
            [programs / "tests" / "session_test", "drive", bundle_copy, *options],
            input="",
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.returncode in (0, 1), done
        status: dict[str, Any] = json.loads(done.stdout)
        return status

    return open_bundle


def change_manifest(bundle: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = bundle / "manifest.json"
    manifest = json.loads(path.read_text(encoding="utf-8"))
    change(manifest)
    path.write_text(json.dumps(manifest), encoding="utf-8")


@pytest.fixture
def batch() -> dict[str, Any]:
    """Items of 7, 4 and 1 tokens, with both token types."""
    random = np.random.default_rng(0)
    mask = (np.arange(7) < np.array([[7], [4], [1]])).astype(np.int64)
    return {
        "input_ids": random.integers(0, 30522, (3, 7)).tolist(),
        "attention_mask": mask.tolist(),
        "token_type_ids": random.integers(0, 2, (3, 7)).tolist(),
    }


def logits_of(answer: dict[str, Any]) -> np.ndarray:
    """[items, labels] or [items, tokens, labels]; null stands for -infinity."""
    assert "values" in answer, answer
    shape = [answer["items"], answer["tokens"], answer["labels"]]
    values = [-np.inf if value is None else value for value in answer["values"]]
    return np.array(values, np.float32).reshape([each for at, each in enumerate(shape) if at != 1 or each])


def file_record(path: Path) -> dict[str, Any]:
    """What the manifest says of a file."""
    data = path.read_bytes()
    return {"crc32c": google_crc32c.value(data), "sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}


def changed_row(bundle: Path, task: str, path: Path, **changes: Any) -> Path:
    """A row of the bundle with other values or fields."""
    path.write_bytes(encode_row(replace(decode_row((bundle / "tasks" / f"{task}.bias").read_bytes()), **changes)))
    return path


# --- learning


@pytest.fixture(scope="session")
def learning_programs() -> Path:
    """The folder of a release build, of which little is built."""
    return build("default", "bitfit_learn", "learning_test", "c_learn_test")


@pytest.fixture(scope="session")
def learning_test(learning_programs: Path) -> Path:
    return learning_programs / "tests" / "learning_test"


@pytest.fixture(scope="session")
def cpp_learn(learning_test: Path, trainable_bundle: Path) -> Learn:
    """`learn` by the program that was built; `bundle` names another bundle."""
    return functools.partial(learn, learning_test, bundle=trainable_bundle)


@pytest.fixture(scope="session")
def python_trainer(trainable_bundle: Path) -> BiasTrainer:
    return BiasTrainer(BiasSession(trainable_bundle, engine="onnxruntime", threads=1))
