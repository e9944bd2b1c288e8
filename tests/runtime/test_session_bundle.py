"""A bundle whose files do not belong together is refused, and the runtime needs nothing but its own dependencies."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bitfit_export.bundle import Layout, Port, read_manifest, read_row, write_row
from bitfit_export.bundle import file_checks as checking_module
from bitfit_export.errors import BundleError, InputError, RowError
from bitfit_export.runtime import BiasSession
from tests.runtime.conftest import (
    TASKS,
    TOLERANCE,
    OpenBundle,
    change_manifest,
    change_program,
    record_again,
    record_of,
)


def test_missing_files_are_named(copied: Path, open_bundle: OpenBundle) -> None:
    for name in ("model.onnx.data", "tokenizer.json", "tasks/score.bias", "model.onnx", "manifest.json"):
        (copied / name).rename(copied / "aside")
        with pytest.raises(BundleError, match=f"{name} cannot be read"):
            open_bundle(copied)
        (copied / "aside").rename(copied / name)


@pytest.mark.parametrize("name", ["model.onnx", "model.onnx.data", "tokenizer.json"])
def test_a_file_of_another_size_is_refused(copied: Path, open_bundle: OpenBundle, name: str) -> None:
    path = copied / name
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(BundleError, match=rf"{name} has \d+ bytes, expected \d+"):
        open_bundle(copied)


def test_a_model_that_is_no_model_is_refused_in_one_line(
    copied: Path, open_bundle: OpenBundle, capfd: pytest.CaptureFixture[str]
) -> None:
    path = copied / "model.onnx"
    path.write_bytes(b"\xff" * path.stat().st_size)
    record_again(copied, "model.onnx")
    with pytest.raises(BundleError, match=r"the model .*model.onnx cannot be loaded: ") as caught:
        open_bundle(copied)
    assert "\n" not in caught.value.message
    assert capfd.readouterr() == ("", "")


def test_weights_of_another_model_are_refused(copied: Path, open_bundle: OpenBundle) -> None:
    """Of the same size: nothing else would tell, and the answers would be wrong."""
    path = copied / "model.onnx.data"
    data = np.frombuffer(path.read_bytes(), np.float32)
    path.write_bytes(np.flip(data).tobytes())
    with pytest.raises(BundleError, match=r"model\.onnx\.data has CRC-32C"):
        open_bundle(copied)


def test_one_bit_is_enough(copied: Path, open_bundle: OpenBundle) -> None:
    for name in ("model.onnx", "model.onnx.data", "tokenizer.json"):
        path = copied / name
        good = path.read_bytes()
        path.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
        with pytest.raises(BundleError, match=f"{name} has CRC-32C"):
            open_bundle(copied)
        path.write_bytes(good)


def test_hashes_are_checked_when_asked_for(copied: Path, open_bundle: OpenBundle) -> None:
    """A forger can give a file any CRC."""
    files = read_manifest(copied).files
    change_manifest(copied, files=files | {"model.onnx.data": replace(files["model.onnx.data"], sha256="0" * 64)})
    open_bundle(copied)
    with pytest.raises(BundleError, match=r"model.onnx.data has sha256"):
        open_bundle(copied, check_hashes=True)


def test_weights_in_a_file_that_the_manifest_does_not_name(copied: Path, open_bundle: OpenBundle) -> None:
    files = dict(read_manifest(copied).files)
    del files["model.onnx.data"]
    change_manifest(copied, files=files)
    with pytest.raises(BundleError, match=r"has weights in 'model\.onnx\.data', which the manifest does not name"):
        open_bundle(copied)


def test_a_bundle_of_an_older_release_is_exported_again(copied: Path, open_bundle: OpenBundle) -> None:
    path = copied / "manifest.json"
    raw = json.loads(path.read_text())
    for record in raw["files"].values():
        del record["crc32c"]
    path.write_text(json.dumps(raw))
    with pytest.raises(BundleError, match=r"lacks crc32c\nhint: export the bundle again"):
        open_bundle(copied)


class TestWhileItIsOpened:
    """Another process writes into the bundle: what was checked is used, or nothing is."""

    def test_a_row_that_is_replaced_after_it_was_read(
        self, copied: Path, open_bundle: OpenBundle, shared: BiasSession, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A forged row stands in its place before and after; only the one that was hashed counts."""
        path = copied / "tasks" / "two_way.bias"
        good = path.read_bytes()
        read, forged = checking_module.read_row_file, bytearray(good)
        forged[500] ^= 1

        def read_then_replace(file: Path, **options: Any) -> bytes:
            data = read(file, **options)
            if file == path:
                path.write_bytes(forged if data == good else good)
            return data

        monkeypatch.setattr(checking_module, "read_row_file", read_then_replace)
        session = open_bundle(copied)
        assert session.predict("a text", "two_way") == shared.predict("a text", "two_way")
        with pytest.raises(BundleError, match="two_way"):
            open_bundle(copied)  # reads the forged one, though the good one stands there afterwards
        assert path.read_bytes() == good

    @pytest.mark.parametrize("name", ["model.onnx", "tokenizer.json"])
    def test_model_and_tokenizer_are_read_once(
        self,
        engine: str,
        copied: Path,
        open_bundle: OpenBundle,
        shared: BiasSession,
        monkeypatch: pytest.MonkeyPatch,
        name: str,
    ) -> None:
        read = checking_module.read_file

        def read_then_replace(path: Path, **options: Any) -> bytes:
            data = read(path, **options)
            if path.name == name:
                path.write_bytes(b"another file")
            return data

        monkeypatch.setattr(checking_module, "read_file", read_then_replace)
        if engine == "openvino" and name == "model.onnx":  # it reads the file itself
            with pytest.raises(BundleError, match=r"model\.onnx changed while the bundle was opened"):
                open_bundle(copied)
            return
        assert open_bundle(copied).predict("a text", "score") == shared.predict("a text", "score")

    def test_weights_that_are_replaced_are_refused(
        self, copied: Path, open_bundle: OpenBundle, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """ONNX Runtime opens them by their name, after they were checked."""
        path = copied / "model.onnx.data"
        check = checking_module.checksum_file

        def check_then_replace(file: Path, **options: Any) -> Any:
            found = check(file, **options)
            path.with_name("new").write_bytes(np.flip(np.frombuffer(path.read_bytes(), np.uint8)).tobytes())
            path.with_name("new").replace(path)
            return found

        monkeypatch.setattr(checking_module, "checksum_file", check_then_replace)
        with pytest.raises(BundleError, match=r"model\.onnx\.data changed while the bundle was opened"):
            open_bundle(copied)


def test_a_bundle_is_found_from_any_folder(
    copied: Path, open_bundle: OpenBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ONNX Runtime gets the model as bytes, and is told where its weights are."""
    for folder, path in [(copied, "."), (copied.parent, copied.name), (copied / "tasks", "..")]:
        monkeypatch.chdir(folder)
        assert open_bundle(path).predict("a text", "score")


def test_a_model_in_another_format_is_not_guessed(copied: Path, open_bundle: OpenBundle) -> None:
    """Bytes that begin as a file of ONNX Runtime's own format, which has other rules of where weights are."""
    path = copied / "model.onnx"
    path.write_bytes(b"\x18\0\0\0ORTM" + path.read_bytes())
    record_again(copied, "model.onnx")
    with pytest.raises(BundleError, match=r"model\.onnx cannot be loaded"):
        open_bundle(copied)


@pytest.mark.parametrize("value", [None, 3, b"x", ["x"]])
def test_paths_that_are_none(shared: BiasSession, value: Any) -> None:
    with pytest.raises(InputError, match=r"the bundle is .*, expected a path"):
        BiasSession(value)
    with pytest.raises(InputError, match=r"the row is .*, expected a path"):
        shared.load_task(value)
    for path in ("a\0b", "x" * 300):
        with pytest.raises(BundleError, match="cannot be read"):
            BiasSession(path)
        with pytest.raises(BundleError, match="cannot be read"):
            shared.load_task(path)


def test_a_good_bundle_has_the_hashes_of_its_manifest(bundle: Path, open_bundle: OpenBundle) -> None:
    assert set(open_bundle(bundle, check_hashes=True).tasks) == set(TASKS)


def test_a_model_of_another_layout_is_refused(copied: Path, open_bundle: OpenBundle) -> None:
    """Same names, same shapes, other order: nothing but the digest tells."""
    path = copied / "model.onnx"
    digest = read_manifest(copied).layout.digest.encode()
    assert path.read_bytes().count(digest) == 1
    path.write_bytes(path.read_bytes().replace(digest, b"0" * 64))
    record_again(copied, "model.onnx")
    with pytest.raises(BundleError, match="has layout digest 000000000000, expected"):
        open_bundle(copied)


def test_a_manifest_with_other_inputs_is_refused(copied: Path, open_bundle: OpenBundle) -> None:
    *others, last = read_manifest(copied).infer.inputs
    change_program(copied, inputs=(*others, replace(last, name="another")))
    with pytest.raises(BundleError, match=r"has the inputs input_ids, .*, expected input_ids, .*another"):
        open_bundle(copied)


@pytest.mark.parametrize(
    ("name", "edit", "message"),
    [
        ("bias_table", lambda value: value.type.tensor_type.shape.dim[1].Clear(), r"\[any, any\], expected"),
        ("input_ids", lambda value: setattr(value.type.tensor_type.shape.dim[0], "dim_value", 1), r"\[1, any\]"),
        ("head.pooling", lambda value: setattr(value, "name", "head.other"), "expected input_ids"),
    ],
)
def test_a_model_with_another_interface_is_refused(
    copied: Path, open_bundle: OpenBundle, name: str, edit: Any, message: str
) -> None:
    import onnx

    path = copied / "model.onnx"
    model = onnx.load(path, load_external_data=False)
    edit(next(value for value in model.graph.input if value.name == name))
    for node in model.graph.node:  # follow a rename, so that the graph still loads
        names = [value.name for value in model.graph.input]
        for index, used in enumerate(node.input):
            if used == name and name not in names:
                node.input[index] = "head.other"
    path.write_bytes(model.SerializeToString())
    record_again(copied, "model.onnx")
    inputs = read_manifest(copied).infer.inputs
    renamed = zip(inputs, model.graph.input, strict=True)
    change_program(copied, inputs=tuple(replace(port, name=value.name) for port, value in renamed))
    with pytest.raises(BundleError, match=message):
        open_bundle(copied)


@pytest.mark.parametrize("kind", ["packed", "named"])
def test_a_manifest_with_another_layout_is_refused(copied: Path, open_bundle: OpenBundle, kind: str) -> None:
    change_manifest(copied, layout_kind=kind)
    with pytest.raises(BundleError, match=r"has the inputs .*task_ids, .*, expected .*\nhint: "):
        open_bundle(copied)


def test_a_manifest_with_other_outputs_is_refused(copied: Path, open_bundle: OpenBundle) -> None:
    outputs = read_manifest(copied).infer.outputs
    change_program(copied, outputs=(*outputs, Port("token_logits", "token_logits", "float32", ("batch",))))
    with pytest.raises(BundleError, match="has the outputs logits, expected logits, token_logits"):
        open_bundle(copied)


def test_a_row_that_is_not_the_recorded_one_is_refused(copied: Path, open_bundle: OpenBundle, layout: Layout) -> None:
    path = copied / "tasks" / "two_way.bias"
    row = read_row(path, layout=layout)
    write_row(path, replace(row, biases=row.biases + np.float32(1)))
    with pytest.raises(BundleError, match=r"two_way.bias has sha256 .*, expected"):
        open_bundle(copied)
    assert set(open_bundle(copied, tasks=["score"]).tasks) == {"score"}


@pytest.mark.parametrize("change", [{"task": "other"}, {"problem_type": "multi_label"}, {"task_version": 2}])
def test_a_row_that_the_manifest_describes_otherwise_is_refused(
    copied: Path, open_bundle: OpenBundle, layout: Layout, change: dict[str, Any]
) -> None:
    path = copied / "tasks" / "two_way.bias"
    write_row(path, replace(read_row(path, layout=layout), **change))
    change_manifest(copied, tasks=record_of(copied, "two_way"))
    with pytest.raises(BundleError, match=r"is the row .*, expected two_way \(single_label, 2 labels, version 1\)"):
        open_bundle(copied)


def test_a_damaged_row_is_refused(copied: Path, open_bundle: OpenBundle) -> None:
    path = copied / "tasks" / "two_way.bias"
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(RowError, match=r"two_way\.bias"):
        open_bundle(copied)


# --- what it needs

CLEAN_RUN = """
    import sys

    class Blocker:
        def find_spec(self, name, path=None, target=None):
            if name.split(".")[0] in {"torch", "onnx", "transformers", "safetensors", "onnx_graphsurgeon", "onnx_ir"}:
                raise ImportError(f"{name} is blocked")

    sys.meta_path.insert(0, Blocker())

    import json
    from bitfit_export.runtime import BiasSession

    session = BiasSession(sys.argv[1], engine=sys.argv[2], threads=1)
    session.load_task(sys.argv[1] + "/tasks/two_way.bias", name="again", labels=["negative", "positive"])
    found = session.predict(["a text", ("a", "pair")], ["two_way", "again"])
    print(json.dumps([found, session.run("score", **session.encode("a text")).tolist()]))
"""


def test_runs_without_torch_onnx_or_transformers(engine: str, bundle: Path, shared: BiasSession) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(CLEAN_RUN), str(bundle), engine],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    predictions, score = json.loads(done.stdout)
    assert predictions == shared.predict(["a text", ("a", "pair")], "two_way")
    np.testing.assert_allclose(score, shared.run("score", **shared.encode("a text")), rtol=0, atol=TOLERANCE)
