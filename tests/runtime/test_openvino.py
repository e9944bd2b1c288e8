"""OpenVINO: its options, the memory that it shares, its requests, and what it refuses.

That it answers as PyTorch does, in every layout and with every kind of task, the other tests of this folder say.
"""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import textwrap
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime as ort
import pytest

from bitfit_export.errors import BundleError, InputError, MissingExtraError, UsageError
from bitfit_export.runtime import BiasSession
from bitfit_export.runtime.engines import onnxruntime as onnxruntime_engine
from bitfit_export.runtime.engines import openvino as engine_module
from bitfit_export.runtime.threads import most_threads
from tests import traces
from tests.runtime.conftest import BATCH, TOLERANCE, MakeBundle, record_again
from tests.runtime.forking import fork_and_wait, needs_fork

if TYPE_CHECKING:
    from bitfit_export.base_model.loading import BaseModel
    from bitfit_export.delta import TaskDelta

openvino = pytest.importorskip("openvino", reason="needs bitfit-export[openvino]")
pytestmark = pytest.mark.parametrize("engine", ["openvino"], indirect=True)

#: The largest difference of a logit to ONNX Runtime's where activations are rounded, to 8 bits or to float16.
ROUNDING = 0.02


@pytest.fixture(autouse=True)
def only_openvino(engine: str) -> None:
    """Of the engines that fixtures are made for."""


def open_with(bundle: Path, **options: Any) -> BiasSession:
    return BiasSession(bundle, engine="openvino", engine_options=options, threads=1)


def program_of(session: BiasSession) -> Any:
    return session._model._program


def property_of(session: BiasSession, name: str) -> Any:
    return program_of(session)._compiled.get_property(name)


# --- memory


def test_a_tensor_uses_numpys_memory(shared: BiasSession) -> None:
    """What bound arrays rest on: OpenVINO reads the array itself, so what is written into it is what runs."""
    array = np.zeros((2, 3), np.float32)
    tensor = program_of(shared).bind({"x": array})["x"]
    assert tensor.data.ctypes.data == array.ctypes.data
    array[1, 2] = 7
    assert tensor.data[1, 2] == 7


def test_a_request_keeps_nothing_of_a_table_that_was_replaced(session: BiasSession) -> None:
    table: Any = session._store
    expected = session.run("two_way", **BATCH)
    old = weakref.ref(table._arrays.tensors[0])
    table.reserve(2 * table.capacity)
    gc.collect()
    assert old() is None
    np.testing.assert_array_equal(session.run("two_way", **BATCH), expected)


# --- requests


class Counted:
    """A compiled model that counts its requests."""

    def __init__(self, compiled: Any) -> None:
        self.compiled, self.made = compiled, 0

    def create_infer_request(self) -> Any:
        self.made += 1
        return self.compiled.create_infer_request()


def test_as_many_requests_are_made_as_threads_run_at_once(
    session: BiasSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = program_of(session)
    program._idle.clear()
    monkeypatch.setattr(program, "_compiled", Counted(program._compiled))
    expected = session.run("two_way", **BATCH)
    for _ in range(3):
        session.run("two_way", **BATCH)
    assert program._compiled.made == 1
    meeting, run = threading.Barrier(3), engine_module._Request.run

    def run_together(*arguments: Any) -> Any:
        meeting.wait(30)
        return run(*arguments)

    monkeypatch.setattr(engine_module._Request, "run", run_together)
    for _ in range(2):
        with ThreadPoolExecutor(3) as pool:
            for found in pool.map(lambda _: session.run("two_way", **BATCH), range(3)):
                np.testing.assert_array_equal(found, expected)
    assert program._compiled.made == 3


def test_a_request_that_failed_is_not_used_again(session: BiasSession) -> None:
    program = program_of(session)
    expected = session.run("two_way", **BATCH)
    with session._store.lease(["two_way"]) as lease:
        feeds = lease.feeds()
        arrays = {**BATCH, **feeds.arrays}
        wrong = program.bind({name: tensor.data[:, :1].copy() for name, tensor in feeds.bound.items()})
        with pytest.raises(BundleError, match="the model can't run this batch: ") as caught:
            program.run(arrays, wrong, ["logits"])
    assert "\n" not in caught.value.message
    assert not program._idle
    np.testing.assert_array_equal(session.run("two_way", **BATCH), expected)


def test_an_input_that_is_not_fed_is_refused(shared: BiasSession) -> None:
    """OpenVINO would read the memory of the last run's array, which is another's by now."""
    program = program_of(shared)
    with shared._store.lease(["two_way"]) as lease:
        feeds = lease.feeds()
        for arrays, bound in (({**BATCH}, feeds.bound), ({**BATCH, **feeds.arrays}, program.bind({}))):
            with pytest.raises(BundleError, match=r"can't run this batch: expected all of input_ids, .*head"):
                program.run(arrays, bound, ["logits"])


# --- precision


def test_float32_is_the_default(shared: BiasSession) -> None:
    """OpenVINO's own is bfloat16 where the processor has it."""
    assert property_of(shared, "INFERENCE_PRECISION_HINT") == openvino.Type.f32
    assert shared.exact


def test_bfloat16_is_nearly_the_same(bundle: Path, shared: BiasSession) -> None:
    if "BF16" not in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        pytest.skip("needs a processor with bfloat16 arithmetic")
    session = open_with(bundle, precision="bf16")
    difference = np.abs(session.run("two_way", **BATCH) - shared.run("two_way", **BATCH)).max()
    assert 1e-4 < difference < 0.2
    assert not session.exact


def test_bfloat16_on_a_processor_that_lacks_it_is_refused(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Older:
        def get_property(self, device: str, name: str) -> list[str]:
            assert (device, name) == ("CPU", "OPTIMIZATION_CAPABILITIES")
            return ["FP32", "INT8"]

    monkeypatch.setattr(engine_module, "_core", lambda: (Older(), os.getpid()))
    with pytest.raises(
        UsageError, match=r"'bf16', but this processor has no bfloat16 .*: OpenVINO would compute in fl"
    ):
        open_with(bundle, precision="bf16")


@pytest.mark.parametrize("precision", ["int8", "int8-static", "int4", "fp16"])
def test_lower_precisions_answer_as_the_graph_is_written(
    tiny_base: BaseModel, tiny_deltas: dict[str, TaskDelta], monkeypatch: pytest.MonkeyPatch, precision: str
) -> None:
    """ONNX Runtime does so where it optimises nothing; else its int4 kernel for AVX2 rounds activations as well."""
    from bitfit_export.compiler import CompileOptions

    monkeypatch.setitem(onnxruntime_engine._LEVELS, "all", ort.GraphOptimizationLevel.ORT_DISABLE_ALL)
    tolerance = 1e-5 if precision == "int4" else ROUNDING
    bundle = traces.bundle_of(tiny_base, tiny_deltas, CompileOptions(target="portable", precision=precision))
    ours, theirs = open_with(bundle), BiasSession(bundle, engine="onnxruntime", threads=1)
    for task in ours.tasks:
        np.testing.assert_allclose(ours.run(task, **BATCH), theirs.run(task, **BATCH), rtol=0, atol=tolerance)
    with pytest.raises(InputError, match="it has 2 in token_type_ids, expected 0 to 1"):
        ours.run("two_way", **(BATCH | {"token_type_ids": BATCH["attention_mask"] * 2}))


# --- streams


def test_streams_have_as_many_threads_each(bundle: Path, shared: BiasSession) -> None:
    session = open_with(bundle, streams=2)
    assert (property_of(session, "NUM_STREAMS"), property_of(session, "INFERENCE_NUM_THREADS")) == (2, 2)
    np.testing.assert_array_equal(session.run("two_way", **BATCH), shared.run("two_way", **BATCH))


@pytest.mark.parametrize("streams", [0, -1, most_threads() + 1, 10**30, "two", ""])
def test_other_numbers_of_streams_are_refused(bundle: Path, streams: Any) -> None:
    with pytest.raises(UsageError, match=f"option streams of .* is .*, expected a number from 1 to {most_threads()}"):
        open_with(bundle, streams=streams)


def test_streams_count_for_the_limit_of_threads(bundle: Path) -> None:
    with pytest.raises(UsageError, match=f"threads times streams is .*, expected at most {most_threads()}"):
        BiasSession(bundle, engine="openvino", engine_options={"streams": most_threads()}, threads=2)


def test_no_thread_of_the_caller_is_bound_to_a_core(shared: BiasSession) -> None:
    """It would be the same core in every process."""
    assert property_of(shared, "ENABLE_CPU_PINNING") is False


# --- compiled models


def test_a_compiled_model_is_kept_and_found_again(bundle: Path, tmp_path: Path, shared: BiasSession) -> None:
    first, second = (open_with(bundle, cache_dir=tmp_path / "new" / "cache") for _ in range(2))
    assert [property_of(each, "LOADED_FROM_CACHE") for each in (first, second)] == [False, True]
    for session in (first, second):
        np.testing.assert_array_equal(session.run("two_way", **BATCH), shared.run("two_way", **BATCH))


def test_a_model_with_other_weights_is_another_one(copied: Path, tmp_path: Path) -> None:
    open_with(copied, cache_dir=tmp_path / "cache")
    path = copied / "model.onnx.data"
    path.write_bytes((np.frombuffer(path.read_bytes(), np.float32) * np.float32(1.5)).tobytes())
    record_again(copied, "model.onnx.data")
    session = open_with(copied, cache_dir=tmp_path / "cache")
    assert not property_of(session, "LOADED_FROM_CACHE")
    np.testing.assert_array_equal(session.run("two_way", **BATCH), open_with(copied).run("two_way", **BATCH))


@pytest.mark.parametrize("path", ["file/cache", "a\0b"])
def test_a_folder_that_cannot_be_made_is_refused(bundle: Path, tmp_path: Path, path: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match=r"the cache_dir .* cannot be made: "):
        open_with(bundle, cache_dir=tmp_path / path)


# --- what it refuses


def test_a_bundle_with_operators_of_onnx_runtime_is_refused(tiny_bundle: Path) -> None:
    message = (
        r"target 'ort', which the engine does not run .*standard ONNX operators alone.*\nhint: .*--target portable"
    )
    with pytest.raises(BundleError, match=message):
        open_with(tiny_bundle)


def test_biases_with_defaults_are_refused(
    tiny_base: BaseModel, tiny_deltas: dict[str, TaskDelta], tmp_path: Path
) -> None:
    """OpenVINO makes constants of them: every task would answer as the base model does."""
    from bitfit_export.compiler import CompileOptions

    options = CompileOptions(target="portable", layout="named", overridable=True)
    traces.compile_bundle(tiny_base, tiny_deltas, tmp_path, options)
    with pytest.raises(
        BundleError, match=r"inputs with defaults, which the engine openvino makes constants\nhint: exp"
    ):
        open_with(tmp_path)
    assert [each.any_name for each in openvino.Core().read_model(tmp_path / "model.onnx").inputs] == list(BATCH)


def test_a_model_that_is_replaced_and_put_back_is_refused(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenVINO reads the file itself, after it was checked."""
    path, aside = copied / "model.onnx", copied / "aside"
    read = engine_module.read_file

    def read_then_replace(name: Path, **options: Any) -> bytes:
        data = read(name, **options)
        path.rename(aside)
        path.write_bytes(data)
        return data

    monkeypatch.setattr(engine_module, "read_file", read_then_replace)
    with pytest.raises(BundleError, match=r"model\.onnx changed while the bundle was opened"):
        open_with(copied)


def test_without_its_package_the_extra_is_named(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    monkeypatch.setattr(engine_module, "_core", engine_module._core.__wrapped__)
    with pytest.raises(MissingExtraError, match=r"openvino.*\nhint: pip install 'bitfit-export\[openvino\]'"):
        open_with(bundle)


# --- forks


@needs_fork
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_process_that_was_forked_after_it_was_used_is_refused(session: BiasSession, bundle: Path) -> None:
    """Some of them would wait for ever for a lock of OpenVINO's threads."""

    def child() -> None:
        for use in (
            lambda: session.run("two_way", **BATCH),
            lambda: open_with(bundle),
        ):
            with pytest.raises(BundleError, match=r"OpenVINO cannot run in this process.*\nhint: .* spawn"):
                use()

    assert fork_and_wait(child) == 0
    assert session.run("two_way", **BATCH).shape == (4, 2)


FORK_FIRST = """
    import os, sys
    from bitfit_export.runtime import BiasSession

    child = os.fork()
    text, task = ["a text"], "two_way"
    session = BiasSession(sys.argv[1], engine="openvino", threads=1)
    assert session.predict(text, task)
    if child == 0:
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
"""


@needs_fork
def test_a_process_that_was_forked_before_may_use_it(bundle: Path) -> None:
    subprocess.run([sys.executable, "-c", textwrap.dedent(FORK_FIRST), str(bundle)], check=True, timeout=120)


def test_static_shapes_run_in_parts(make_bundle: MakeBundle, open_layout: Callable[[str], BiasSession]) -> None:
    """One request serves the parts of a batch one after another; each part's outputs are its own."""
    session = open_layout("static")
    rows = [session.run("two_way", **{name: each[row : row + 1] for name, each in BATCH.items()}) for row in range(4)]
    np.testing.assert_allclose(session.run("two_way", **BATCH), np.concatenate(rows), rtol=0, atol=TOLERANCE)
