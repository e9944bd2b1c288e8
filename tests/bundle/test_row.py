"""The row file: what a reader takes, what it refuses, and for which reason."""

from __future__ import annotations

import json
import re
import runpy
import struct
from dataclasses import replace
from pathlib import Path

import google_crc32c
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from bitfit_export.bundle import BiasRow, Layout, decode_row, encode_row, read_row, write_row
from bitfit_export.bundle import row as row_module
from bitfit_export.bundle.row_format import (
    BIAS_COUNT_AT,
    DTYPE_AT,
    FILE_SIZE_AT,
    HEAD_COUNT_AT,
    HEAD_TABLE_AT,
    HEADER_CHECKSUM_AT,
    HEADER_SIZE,
    LABELS_AT,
    MAX_HEAD_TENSORS,
    MAX_LABELS,
    MAX_ROW_SIZE,
    PROBLEM_CODES,
    RESERVED_AT,
    SLOT,
    TASK_AT,
    TASK_VERSION_AT,
)
from bitfit_export.delta import PROBLEM_TYPES
from bitfit_export.errors import BundleError, OutputError, RowError, RowFault

CONFORMANCE = Path(__file__).parents[2] / "conformance"
INDEX = json.loads((CONFORMANCE / "rows" / "index.json").read_text(encoding="utf-8"))
LAYOUT = Layout.from_json(INDEX["layout"])
GOOD_ROWS = [name for name, fault in INDEX["rows"].items() if fault is None]
HEAD_INDEX = json.loads((CONFORMANCE / "heads" / "index.json").read_text(encoding="utf-8"))
HEAD_LAYOUT = Layout.from_json(HEAD_INDEX["layout"])
HEADS: dict[str, str | None] = HEAD_INDEX["rows"]
BAD_ROWS = {name: RowFault[fault] for name, fault in INDEX["rows"].items() if fault is not None}

UINT32_MAX = 2**32 - 1


def golden(name: str) -> bytes:
    return (CONFORMANCE / "rows" / name).read_bytes()


def change(at: int, value: bytes) -> bytes:
    """The good float32 row with other header bytes, and checksums that agree with them."""
    data = bytearray(golden("good_float32.bias"))
    data[at : at + len(value)] = value
    data[HEADER_CHECKSUM_AT:HEADER_SIZE] = u32(google_crc32c.value(bytes(data[:HEADER_CHECKSUM_AT])))
    return bytes(data)


def u32(*values: int) -> bytes:
    return struct.pack(f"<{len(values)}I", *values)


def fault_of(data: bytes, layout: Layout | None = None) -> RowFault:
    with pytest.raises(RowError) as caught:
        decode_row(data, layout=layout)
    assert caught.value.message.startswith(caught.value.fault.value + ": ")
    return caught.value.fault


def encode_fault(row: BiasRow) -> RowFault:
    with pytest.raises(RowError) as caught:
        encode_row(row)
    return caught.value.fault


@pytest.fixture
def row() -> BiasRow:
    return decode_row(golden("good_float32.bias"))


class TestGoldenRows:
    def test_the_generator_still_makes_the_committed_files(self) -> None:
        make = runpy.run_path(str(CONFORMANCE / "make_rows.py"))
        for folder, build in {"rows": "build", "heads": "build_heads"}.items():
            assert make[build]() == {path.name: path.read_bytes() for path in (CONFORMANCE / folder).iterdir()}

    def test_there_is_a_bad_row_for_every_fault(self) -> None:
        assert set(BAD_ROWS.values()) == set(RowFault)

    @pytest.mark.parametrize("name", BAD_ROWS)
    def test_a_bad_row_gives_its_fault(self, name: str) -> None:
        assert fault_of(golden(name), LAYOUT) is BAD_ROWS[name]

    @pytest.mark.parametrize("name", GOOD_ROWS)
    def test_a_good_row_is_taken_and_written_back_byte_for_byte(self, name: str) -> None:
        assert encode_row(decode_row(golden(name), layout=LAYOUT)) == golden(name)

    @pytest.mark.parametrize(("name", "dtype"), [("good_float32.bias", np.float32), ("good_float16.bias", np.float16)])
    def test_a_good_row_holds_what_the_generator_put_there(self, name: str, dtype: type) -> None:
        row = decode_row(golden(name))
        assert (row.task, row.problem_type, row.labels, row.task_version) == ("sst-2", "single_label", 2, 7)
        assert row.layout_digest == INDEX["layout_digest"] == LAYOUT.digest
        assert row.biases.tolist() == [0.5, -1.25, 0.0, 3.0, -0.0625, 2.0, -7.5, 0.125]
        assert [tensor.tolist() for tensor in row.head] == [
            [1.0, 0.0, 0.0],
            [[0.25, -0.5, 0.75, -1.0], [1.25, -1.5, 1.75, -2.0]],
            [0.03125, -0.03125],
        ]
        assert {tensor.dtype for tensor in (row.biases, *row.head)} == {np.dtype(dtype)}


class TestSpecification:
    """The page and the enum say the same."""

    PAGE = (CONFORMANCE.parent / "docs" / "bias_row.md").read_text(encoding="utf-8")

    def test_the_fields_follow_each_other_up_to_the_payload(self) -> None:
        fields = [
            tuple(map(int, each)) for each in re.findall(r"^\| (\d+) \| (\d+) \| (\d+) \|", self.PAGE, re.MULTILINE)
        ]
        end = 0
        for number, (name, offset, size) in enumerate(fields, start=1):
            assert (name, offset) == (number, end)
            end += size
        assert end == HEADER_SIZE

    def test_the_sketch_in_c_has_these_numbers(self) -> None:
        limits = f"SLOTS = {MAX_HEAD_TENSORS}, MAX_LABELS = {MAX_LABELS}, MAX_FILE_SIZE = 1 << 30"
        assert f"enum {{ HEADER_SIZE = {HEADER_SIZE}, {limits} }};" in self.PAGE
        assert MAX_ROW_SIZE == 1 << 30

    def test_the_checks_are_the_faults_in_order(self) -> None:
        assert re.findall(r"^\| \d+ \| `(\w+)` \|", self.PAGE, re.MULTILINE) == [fault.name for fault in RowFault]


class TestDamage:
    def test_every_flipped_bit_is_seen(self) -> None:
        good = golden("good_float32.bias")
        for bit in range(8 * len(good)):
            data = bytearray(good)
            data[bit // 8] ^= 1 << bit % 8
            with pytest.raises(RowError):
                decode_row(bytes(data))

    def test_every_truncation_is_seen(self) -> None:
        good = golden("good_float32.bias")
        for length in range(len(good)):
            expected = RowFault.TRUNCATED_HEADER if length < HEADER_SIZE else RowFault.TRUNCATED
            assert fault_of(good[:length]) is expected

    @settings(deadline=None)
    @given(at=st.integers(0, HEADER_CHECKSUM_AT - 1), value=st.binary(min_size=1, max_size=16), tail=st.binary())
    def test_a_forged_header_gives_a_fault_or_the_row_of_exactly_these_bytes(
        self, at: int, value: bytes, tail: bytes
    ) -> None:
        data = change(at, value[: HEADER_CHECKSUM_AT - at]) + tail
        try:
            row = decode_row(data, layout=LAYOUT)
        except RowError:
            return
        assert encode_row(row) == data


class TestEachRuleOnBothSides:
    @pytest.mark.parametrize("at", [RESERVED_AT, HEADER_CHECKSUM_AT - 1])
    def test_reserved_bytes_are_zero(self, at: int) -> None:
        assert fault_of(change(at, b"\1")) is RowFault.UNKNOWN_FLAG

    @pytest.mark.parametrize("code", [0, 2, 9, 11, 16, UINT32_MAX])
    def test_a_dtype_is_float32_or_float16(self, code: int) -> None:
        assert fault_of(change(DTYPE_AT, u32(code))) is RowFault.BAD_DTYPE

    @pytest.mark.parametrize("name", [b"a", b"0", b"a.b_c-D", b"x" * 63])
    def test_task_names(self, name: bytes) -> None:
        assert decode_row(change(TASK_AT, name.ljust(64, b"\0"))).task == name.decode()

    @pytest.mark.parametrize(
        "name", [b"", b"x" * 64, b".a", b"-a", b"a/b", b"a b", b"a\n", b"a\0b", "ä".encode(), b"\xff"]
    )
    def test_malformed_task_names(self, name: bytes) -> None:
        assert fault_of(change(TASK_AT, name.ljust(64, b"\0"))) is RowFault.BAD_TASK_NAME

    def test_task_versions_start_at_1(self) -> None:
        assert decode_row(change(TASK_VERSION_AT, u32(1))).task_version == 1
        assert decode_row(change(TASK_VERSION_AT, u32(UINT32_MAX))).task_version == UINT32_MAX
        assert fault_of(change(TASK_VERSION_AT, u32(0))) is RowFault.BAD_TASK_NAME

    @pytest.mark.parametrize(
        "slot",
        [
            u32(0, 0, 0, 0),
            u32(4, 3, 0, 0),
            u32(1, 3, 1, 0),
            u32(2, 3, 1, 1),
            u32(3, 65536, 65536, 1),
            u32(UINT32_MAX, 3),
        ],
        ids=["rank 0", "rank 4", "unused dimension", "another one", "2^32 values", "absurd rank"],
    )
    def test_malformed_head_slots(self, slot: bytes) -> None:
        assert fault_of(change(HEAD_TABLE_AT, slot)) is RowFault.BAD_HEAD

    @pytest.mark.parametrize("word", range(4))
    def test_slots_beyond_the_head_are_zero(self, word: int) -> None:
        assert fault_of(change(HEAD_TABLE_AT + 3 * SLOT.size + 4 * word, u32(1))) is RowFault.BAD_HEAD

    def test_at_most_16_head_tensors(self, row: BiasRow) -> None:
        tensor = np.ones(1, np.float32)
        assert len(decode_row(encode_row(replace(row, head=(tensor,) * 16))).head) == 16
        assert encode_fault(replace(row, head=(tensor,) * 17)) is RowFault.BAD_HEAD
        assert fault_of(change(HEAD_COUNT_AT, u32(17))) is RowFault.BAD_HEAD

    @pytest.mark.parametrize(
        ("problem_type", "good", "bad"),
        [
            ("single_label", [1, 2, MAX_LABELS], [0, MAX_LABELS + 1, UINT32_MAX]),
            ("multi_label", [1, 5, MAX_LABELS], [0, MAX_LABELS + 1]),
            ("token", [1, 9, MAX_LABELS], [0, MAX_LABELS + 1]),
            ("regression", [1], [0, 2]),
            ("span", [2], [0, 1, 3]),
        ],
    )
    def test_label_counts(self, row: BiasRow, problem_type: str, good: list[int], bad: list[int]) -> None:
        for labels in good:
            encode_row(replace(row, problem_type=problem_type, labels=labels))
        for labels in bad:
            assert encode_fault(replace(row, problem_type=problem_type, labels=labels)) is RowFault.BAD_LABEL_COUNT
            data = change(LABELS_AT, u32(labels, PROBLEM_CODES[problem_type]))
            assert fault_of(data) is RowFault.BAD_LABEL_COUNT

    @pytest.mark.parametrize("size", [0, 531, 533, 2**64 - 1])
    def test_the_stated_file_size_is_the_size(self, size: int) -> None:
        expected = RowFault.TRUNCATED if size < 532 else RowFault.TRAILING_BYTES
        assert fault_of(change(FILE_SIZE_AT, struct.pack("<Q", size))) is expected

    def test_a_huge_count_is_compared_before_it_is_used(self) -> None:
        assert fault_of(change(BIAS_COUNT_AT, u32(UINT32_MAX))) is RowFault.TRUNCATED
        assert fault_of(change(HEAD_TABLE_AT, u32(3, 65535, 65537, 1))) is RowFault.TRUNCATED

    def test_faults_are_found_in_the_order_of_the_enum(self) -> None:
        """A file with two faults gives the one that comes first."""
        both = bytearray(change(TASK_AT, b"../sst")[:-4])
        assert fault_of(bytes(both)) is RowFault.BAD_TASK_NAME
        both[16] = 1
        assert fault_of(bytes(both)) is RowFault.BAD_HEADER_CHECKSUM
        both[8] = 2
        assert fault_of(bytes(both)) is RowFault.BAD_VERSION


class TestFitToALayout:
    def test_a_row_for_another_layout_says_what_to_do(self) -> None:
        with pytest.raises(RowError, match="export the task sst-2") as caught:
            decode_row(golden("bad_wrong_layout.bias"), layout=LAYOUT)
        assert caught.value.fault is RowFault.WRONG_LAYOUT

    def test_a_row_for_another_layout_is_whole_all_the_same(self) -> None:
        assert decode_row(golden("bad_wrong_layout.bias")).task == "sst-2"

    def test_bias_count(self, row: BiasRow) -> None:
        data = encode_row(replace(row, biases=row.biases[:-1]))
        assert fault_of(data, LAYOUT) is RowFault.WRONG_LAYOUT

    def test_head_count_rank_and_fixed_dimensions(self, row: BiasRow) -> None:
        pooling, weight, bias = row.head
        for head in [(pooling, weight), (pooling, weight, bias[:, None]), (pooling, weight[:, :3], bias)]:
            assert fault_of(encode_row(replace(row, head=head)), LAYOUT) is RowFault.BAD_HEAD

    def test_labels_in_the_head_and_in_the_header_agree(self, row: BiasRow) -> None:
        assert fault_of(encode_row(replace(row, labels=3)), LAYOUT) is RowFault.BAD_LABEL_COUNT

    def test_a_task_may_have_any_number_of_labels(self, row: BiasRow) -> None:
        head = (row.head[0], np.ones((5, 4), np.float32), np.ones(5, np.float32))
        data = encode_row(replace(row, labels=5, head=head))
        assert decode_row(data, layout=LAYOUT).head[1].shape == (5, 4)

    @pytest.mark.parametrize("name", HEADS)
    def test_every_head_is_whole_or_absent_part_by_part(self, name: str) -> None:
        data = (CONFORMANCE / "heads" / name).read_bytes()
        if HEADS[name] is None:
            assert encode_row(decode_row(data, layout=HEAD_LAYOUT)) == data
        else:
            assert fault_of(data, HEAD_LAYOUT) is RowFault[HEADS[name]]

    @pytest.mark.parametrize("name", ["head.classifier.weight", "head.classifier.bias"])
    def test_a_tensor_with_labels_is_never_absent(self, row: BiasRow, name: str) -> None:
        """Else a small file would ask for room for any number of labels."""
        index = [entry.name for entry in LAYOUT.head].index(name)
        head = list(row.head)
        head[index] = np.zeros((0, *head[index].shape[1:]), np.float32)
        assert fault_of(encode_row(replace(row, head=tuple(head))), LAYOUT) is RowFault.BAD_LABEL_COUNT

    def test_the_most_labels(self, row: BiasRow) -> None:
        head = (row.head[0], np.ones((MAX_LABELS, 4), np.float32), np.ones(MAX_LABELS, np.float32))
        data = encode_row(replace(row, labels=MAX_LABELS, head=head))
        assert decode_row(data, layout=LAYOUT).head[1].shape == (MAX_LABELS, 4)


class TestEncode:
    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
    def test_only_finite_values_are_written(self, row: BiasRow, value: float) -> None:
        biases = row.biases.copy()
        biases[3] = value
        assert encode_fault(replace(row, biases=biases)) is RowFault.NOT_FINITE
        weight = row.head[1].copy()
        weight[1, 2] = value
        assert encode_fault(replace(row, head=(row.head[0], weight, row.head[2]))) is RowFault.NOT_FINITE

    def test_one_dtype_for_the_whole_row(self, row: BiasRow) -> None:
        assert encode_fault(replace(row, biases=row.biases.astype(np.float16))) is RowFault.BAD_DTYPE
        assert encode_fault(replace(row, biases=row.biases.astype(np.float64), head=())) is RowFault.BAD_DTYPE

    def test_the_rest_of_what_a_reader_refuses(self, row: BiasRow) -> None:
        assert encode_fault(replace(row, problem_type="ranking")) is RowFault.BAD_PROBLEM_TYPE
        assert encode_fault(replace(row, task="../sst")) is RowFault.BAD_TASK_NAME
        assert encode_fault(replace(row, task="sst\n")) is RowFault.BAD_TASK_NAME
        assert encode_fault(replace(row, task="x" * 64)) is RowFault.BAD_TASK_NAME
        assert encode_fault(replace(row, task_version=0)) is RowFault.BAD_TASK_NAME
        assert encode_fault(replace(row, task_version=2**32)) is RowFault.BAD_TASK_NAME
        assert encode_fault(replace(row, biases=row.biases.reshape(2, 4))) is RowFault.BAD_HEAD
        assert encode_fault(replace(row, head=(np.float32(1),))) is RowFault.BAD_HEAD  # type: ignore[arg-type]
        assert encode_fault(replace(row, head=(np.ones((1, 1, 1, 1), np.float32),))) is RowFault.BAD_HEAD
        assert encode_fault(replace(row, head=(np.ones((0, 2**32), np.float32),))) is RowFault.BAD_HEAD
        assert encode_fault(replace(row, labels=2**32)) is RowFault.BAD_LABEL_COUNT
        assert encode_fault(replace(row, layout_digest=LAYOUT.digest.upper())) is RowFault.WRONG_LAYOUT

    def test_problem_types_are_those_of_a_delta(self) -> None:
        assert tuple(PROBLEM_CODES) == PROBLEM_TYPES
        assert sorted(PROBLEM_CODES.values()) == [1, 2, 3, 4, 5]

    @settings(deadline=None)
    @given(data=st.data())
    def test_decode_inverts_encode(self, data: st.DataObject) -> None:
        dtype = data.draw(st.sampled_from([np.float32, np.float16]))
        finite = {"allow_nan": False, "allow_infinity": False, "width": 8 * np.dtype(dtype).itemsize}
        values = st.floats(**finite)
        shapes = array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=4)
        problem_type = data.draw(st.sampled_from(sorted(PROBLEM_CODES)))
        row = BiasRow(
            task=data.draw(st.from_regex(re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}"), fullmatch=True)),
            problem_type=problem_type,
            labels={"regression": 1, "span": 2}.get(problem_type) or data.draw(st.integers(1, MAX_LABELS)),
            task_version=data.draw(st.integers(1, UINT32_MAX)),
            layout_digest=data.draw(st.binary(min_size=32, max_size=32)).hex(),
            biases=data.draw(arrays(dtype, st.integers(0, 20), elements=values)),
            head=tuple(data.draw(st.lists(arrays(dtype, shapes, elements=values), max_size=16))),
        )
        encoded = encode_row(row)
        decoded = decode_row(encoded)
        for name in ("task", "problem_type", "labels", "task_version", "layout_digest"):
            assert getattr(decoded, name) == getattr(row, name)
        for before, after in zip((row.biases, *row.head), (decoded.biases, *decoded.head), strict=True):
            assert before.dtype == after.dtype
            assert before.shape == after.shape
            assert before.tobytes() == after.tobytes()
        assert encode_row(decoded) == encoded


class TestArrays:
    def test_a_row_is_read_only(self, row: BiasRow) -> None:
        for array in (row.biases, *row.head):
            with pytest.raises(ValueError, match="read-only"):
                array[...] = 0

    def test_reading_bytes_copies_nothing(self) -> None:
        data = golden("good_float32.bias")
        assert np.shares_memory(decode_row(data).biases, np.frombuffer(data, np.uint8))

    def test_a_row_from_a_buffer_that_changes_does_not_change(self) -> None:
        buffer = bytearray(golden("good_float32.bias"))
        row = decode_row(memoryview(buffer))
        buffer[HEADER_SIZE:] = bytes(len(buffer) - HEADER_SIZE)
        assert row.biases[0] == 0.5

    def test_a_row_does_not_follow_the_array_that_it_was_made_from(self, row: BiasRow) -> None:
        biases = row.biases.copy()
        made = replace(row, biases=biases)
        biases[0] = 99
        assert made.biases[0] == 0.5

    def test_strided_arrays_are_written_in_c_order(self, row: BiasRow) -> None:
        strided = replace(row, head=(row.head[0], np.asfortranarray(row.head[1]), row.head[2]))
        assert encode_row(strided) == encode_row(row)


class TestFiles:
    def test_write_then_read(self, tmp_path: Path, row: BiasRow) -> None:
        write_row(tmp_path / "sst-2.bias", row)
        assert (tmp_path / "sst-2.bias").read_bytes() == golden("good_float32.bias")
        assert read_row(tmp_path / "sst-2.bias", layout=LAYOUT).task == "sst-2"

    def test_a_row_that_can_not_be_written_leaves_the_old_file(self, tmp_path: Path, row: BiasRow) -> None:
        path = tmp_path / "sst-2.bias"
        write_row(path, row)
        with pytest.raises(RowError):
            write_row(path, replace(row, task_version=0))
        assert path.read_bytes() == golden("good_float32.bias")
        assert list(tmp_path.iterdir()) == [path]

    def test_a_failing_disk_leaves_the_old_file(
        self, tmp_path: Path, row: BiasRow, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = tmp_path / "sst-2.bias"
        write_row(path, row)

        def fail(descriptor: int) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("os.fsync", fail)
        with pytest.raises(OutputError, match="No space left"):
            write_row(path, replace(row, task_version=8))
        assert path.read_bytes() == golden("good_float32.bias")
        assert list(tmp_path.iterdir()) == [path]

    def test_a_file_beyond_the_limit_is_not_read(self, tmp_path: Path) -> None:
        path = tmp_path / "sparse.bias"
        with path.open("wb") as stream:
            stream.truncate(MAX_ROW_SIZE + 1)
        with pytest.raises(RowError, match="1073741825 bytes, expected at most 1073741824") as caught:
            read_row(path)
        assert caught.value.fault is RowFault.TRAILING_BYTES

    def test_the_limit_holds_for_bytes_and_for_writing(self, row: BiasRow, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(row_module, "MAX_ROW_SIZE", row.file_size)
        data = encode_row(row)
        assert decode_row(data).task == row.task
        monkeypatch.setattr(row_module, "MAX_ROW_SIZE", row.file_size - 1)
        assert fault_of(data) is RowFault.TRAILING_BYTES
        assert encode_fault(row) is RowFault.TRAILING_BYTES

    def test_a_file_that_is_not_there(self, tmp_path: Path) -> None:
        with pytest.raises(BundleError, match="cannot be read") as caught:
            read_row(tmp_path / "none.bias")
        assert caught.value.hint

    def test_a_fault_names_the_file(self) -> None:
        path = CONFORMANCE / "rows" / "bad_truncated.bias"
        with pytest.raises(RowError, match=f"truncated payload: {re.escape(str(path))}: the file has 528 bytes"):
            read_row(path)
