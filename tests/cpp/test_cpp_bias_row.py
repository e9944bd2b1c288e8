"""The C++ row reader judges every file as the Python reader does, and reads the same values from the good ones."""

from __future__ import annotations

import json
import re
import shutil
import struct
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import pytest

from bitfit_export.bundle import PROBLEM_CODES, BiasRow, Layout, decode_row, encode_row
from bitfit_export.bundle.row_format import (
    BIAS_COUNT_AT,
    DTYPE_AT,
    FILE_SIZE_AT,
    FLAGS_AT,
    HEAD_COUNT_AT,
    HEAD_TABLE_AT,
    HEADER_CHECKSUM_AT,
    HEADER_SIZE,
    LABELS_AT,
    LAYOUT_DIGEST_AT,
    PAYLOAD_CHECKSUM_AT,
    PROBLEM_TYPE_AT,
    RESERVED_AT,
    TASK_AT,
    TASK_VERSION_AT,
)
from bitfit_export.errors import RowError, RowFault
from tests.cpp.conftest import CMAKE, CPP, ROOT

ROWS = ROOT / "conformance" / "rows"
INDEX = json.loads((ROWS / "index.json").read_text(encoding="utf-8"))
LAYOUT = Layout.from_json(INDEX["layout"])
GOOD_ROWS = [name for name, fault in INDEX["rows"].items() if fault is None]
BAD_ROWS = {name: fault for name, fault in INDEX["rows"].items() if fault is not None}

WARNINGS = ["-Wall", "-Wextra", "-Wpedantic", "-Werror", "-Wconversion", "-Wsign-conversion", "-Wshadow"]
BARE = ["-fno-exceptions", "-fno-rtti"]
SANITIZERS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer", "-g"]
#: GCC's or the system's compiler, and Clang where it is installed.
COMPILERS = [path for path in (shutil.which("g++") or shutil.which("c++"), shutil.which("clang++")) if path]
needs_compiler = pytest.mark.skipif(not COMPILERS, reason="needs g++, c++ or clang++")

UINT32_MAX = 2**32 - 1


def u32(*values: int) -> bytes:
    return struct.pack(f"<{len(values)}I", *values)


def make_row(**changes: Any) -> BiasRow:
    values: dict[str, Any] = {
        "task": "task",
        "problem_type": "single_label",
        "labels": 2,
        "task_version": 1,
        "layout_digest": LAYOUT.digest,
        "biases": np.zeros(8, np.float32),
        "head": (),
    }
    return BiasRow(**(values | changes))


#: Good and bad ones.
TASK_NAMES = [b"a", b"0", b"Z.z_-9", b"x" * 63, b"", b"x" * 64, b".a", b"-a", b"_a", b"a/b", b"a b", b"a\n", b"a\0b"]
#: Rank and dimensions of a first head tensor that should be (1, 3).
SLOTS = [
    *[(1, 3, 0, 0), (2, 3, 1, 0), (3, 3, 1, 1), (1, 0, 0, 0)],
    *[(0, 0, 0, 0), (4, 3, 0, 0), (UINT32_MAX, 3, 0, 0)],
    *[(1, 3, 1, 0), (1, 3, 0, 1), (2, 3, 1, 1)],
    *[(2, 65535, 65537, 0), (2, 65536, 65536, 0), (3, 65536, 65536, 1), (3, 0, 65536, 65536), (3, *(UINT32_MAX,) * 3)],
]
#: One header field each, at its offset: values within its rule and beyond. The base is the good float32 row.
FIELDS = [
    *((FLAGS_AT, u32(flags)) for flags in (1, 1 << 31)),
    *((DTYPE_AT, u32(dtype)) for dtype in (0, 1, 2, 9, 10, 11, UINT32_MAX)),
    *((FILE_SIZE_AT, struct.pack("<Q", size)) for size in (0, 531, 532, 533, 2**32 + 532, 2**64 - 1)),
    *((LAYOUT_DIGEST_AT + at, b"\0") for at in (0, 15, 31)),
    *((BIAS_COUNT_AT, u32(count)) for count in (0, 7, 9, UINT32_MAX)),
    *((BIAS_COUNT_AT, u32(count, 3)) for count in (2**30 + 8, 2**31 + 8)),
    *((HEAD_COUNT_AT, u32(count)) for count in (0, 2, 4, 16, 17, UINT32_MAX)),
    (PAYLOAD_CHECKSUM_AT, u32(0)),
    *((LABELS_AT, u32(labels, code)) for labels in (0, 1, 2, 3, 65_536, 65_537, UINT32_MAX) for code in range(7)),
    *((TASK_VERSION_AT, u32(version)) for version in (0, 1, UINT32_MAX)),
    *((TASK_AT, name.ljust(64, b"\0")) for name in TASK_NAMES),
    *((TASK_AT + 1, bytes([byte])) for byte in range(256)),
    *((TASK_AT, bytes([byte])) for byte in range(256)),
    (TASK_AT + 63, b"x"),
    *((HEAD_TABLE_AT, u32(*slot)) for slot in SLOTS),
    *((HEAD_TABLE_AT + 16 * slot + 4 * word, u32(1)) for slot in (3, 15) for word in range(4)),
    *((at, b"\1") for at in range(RESERVED_AT, HEADER_CHECKSUM_AT)),
]
#: A row with every slot of the head table in use.
FULL_HEAD = make_row(head=(np.ones(1, np.float32),) * 16)
#: Bits of numbers (the largest, a subnormal) and of what is none (infinities, NaN of both kinds), as unsigned integers.
FLOAT32_BITS = ("I", [0x7F7FFFFF, 0xFF7FFFFF, 1], [0x7F800000, 0xFF800000, 0x7F800001, 0x7FC00000, 0xFFFFFFFF])
FLOAT16_BITS = ("H", [0x7BFF, 0xFBFF, 1], [0x7C00, 0xFC00, 0x7C01, 0x7E00, 0xFFFF])


@pytest.fixture(
    scope="session",
    params=[pytest.param(path, id=Path(path).name) for path in COMPILERS] or [pytest.param("", marks=needs_compiler)],
)
def compiler(request: pytest.FixtureRequest) -> str:
    path: str = request.param
    return path


class Program:
    """The compiled test program."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def run(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run([self.path, *arguments], capture_output=True, text=True, check=False)

    def check(self, *arguments: str | Path) -> None:
        """Run it; it must find nothing wrong."""
        done = self.run(*arguments)
        assert done.returncode == 0, done.stdout + done.stderr

    def check_files(self, folder: Path, expected: Mapping[str, str]) -> None:
        """Each file gives its status, at eight addresses."""
        pairs = [f"{name}={status}" for name, status in expected.items()]
        self.check("check", folder, LAYOUT.digest, str(LAYOUT.bias_count), *pairs)

    def print(self, path: Path) -> dict[str, Any]:
        """What the reader makes of a file. A -0 keeps its sign."""
        done = self.run("print", path)
        assert done.returncode in (0, 1), done.stdout + done.stderr
        assert done.stderr == ""
        printed: dict[str, Any] = json.loads(done.stdout, parse_int=lambda text: -0.0 if text == "-0" else int(text))
        assert (done.returncode == 0) == (printed["status"] == "OK")
        return printed


@pytest.fixture(scope="session", params=[[], SANITIZERS], ids=["plain", "sanitized"])
def program(request: pytest.FixtureRequest, compiler: str, tmp_path_factory: pytest.TempPathFactory) -> Program:
    path = tmp_path_factory.mktemp("cpp") / "bias_row_test"
    source = CPP / "tests" / "bias_row_test.cpp"
    flags = ["-std=c++17", "-O1", *WARNINGS, *BARE, *request.param, f"-I{CPP / 'include'}"]
    run_compiler(compiler, [*flags, str(source), "-o", str(path)])
    return Program(path)


def run_compiler(compiler: str, arguments: Iterable[str], source: str | None = None) -> None:
    done = subprocess.run([compiler, *arguments], input=source, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


class TestHeader:
    @pytest.mark.parametrize("standard", ["c++17", "c++20"])
    def test_it_compiles_alone_and_freestanding(self, compiler: str, standard: str) -> None:
        header = CPP / "include" / "bitfit" / "bias_row.h"
        flags = [f"-std={standard}", "-ffreestanding", *BARE, *WARNINGS, "-Werror=vla", "-fsyntax-only"]
        run_compiler(compiler, [*flags, "-x", "c++", str(header)])

    def test_it_needs_nothing_but_what_a_compiler_needs(self, compiler: str, tmp_path: Path) -> None:
        """No heap, no I/O: the functions that compilers call by themselves are the only ones left to link."""
        if shutil.which("nm") is None:
            pytest.skip("needs nm")
        source = (
            "#include <bitfit/bias_row.h>\n"
            "float first(const void* data, std::size_t size, bitfit::BiasRowView* row, bitfit::RowProblem* problem) {\n"
            "  if (bitfit::read_bias_row(data, size, row, problem) != bitfit::RowStatus::ok) return 0;\n"
            "  if (bitfit::check_layout(*row, row->layout_digest, 1, problem) != bitfit::RowStatus::ok) return 0;\n"
            "  return row->floats() != nullptr ? row->floats()[0] : row->bias(0) + row->head(0, 0);\n"
            "}\n"
        )
        path = tmp_path / "first.o"
        flags = ["-std=c++17", "-Os", "-ffreestanding", *BARE, *WARNINGS]
        run_compiler(compiler, [*flags, f"-I{CPP / 'include'}", "-x", "c++", "-c", "-", "-o", str(path)], source)
        listed = subprocess.run(["nm", "-u", path], capture_output=True, text=True, check=True).stdout
        needed = {name.lstrip("_") for name in re.findall(r"\bU (\w+)", listed)}
        assert needed <= {"memcpy", "memcmp", "memmove", "memset"}

    def test_the_examples_of_the_readme_compile(self, compiler: str) -> None:
        page = (CPP / "README.md").read_text(encoding="utf-8")
        session, npu, learning, row = re.findall(r"^```cpp\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
        flags = ["-std=c++17", *WARNINGS, f"-I{CPP / 'include'}", "-fsyntax-only", "-x", "c++", "-"]
        for example in (session, npu, learning):
            run_compiler(compiler, flags, example)
        run_compiler(compiler, [*BARE, *flags], row)


class TestGoldenRows:
    def test_statuses_are_the_faults_in_order(self, program: Program) -> None:
        lines = [line.split("\t") for line in program.run("statuses").stdout.splitlines()]
        faults = [[str(number), fault.name, fault.value] for number, fault in enumerate(RowFault, start=1)]
        assert lines == [["0", "OK", "ok"], *faults]

    def test_every_file_gives_its_fault(self, program: Program) -> None:
        program.check_files(ROWS, {name: fault or "OK" for name, fault in INDEX["rows"].items()})

    def test_a_wrong_expectation_is_reported(self, program: Program) -> None:
        arguments = ["check", ROWS, LAYOUT.digest, str(LAYOUT.bias_count)]
        done = program.run(*arguments, "good_float32.bias=BAD_HEAD", "bad_head.bias=BAD_HEAD")
        assert done.returncode == 1
        assert "good_float32.bias, address % 8 == 0: OK, expected BAD_HEAD" in done.stdout
        assert "2 files, 8 mismatches" in done.stdout

    def test_the_layout_is_the_digest_and_the_count(self, program: Program) -> None:
        for digest, count in [(LAYOUT.digest, 7), (LAYOUT.digest, 9), (LAYOUT.digest[:-1] + "f", 8)]:
            program.check("check", ROWS, digest, str(count), *[f"{name}=WRONG_LAYOUT" for name in GOOD_ROWS])

    @pytest.mark.parametrize("name", GOOD_ROWS)
    def test_every_flipped_bit_is_seen(self, program: Program, name: str) -> None:
        program.check("flips", ROWS / name)

    @pytest.mark.parametrize("name", GOOD_ROWS)
    def test_every_truncation_is_seen(self, program: Program, name: str) -> None:
        program.check("truncations", ROWS / name)

    @pytest.mark.parametrize("name", GOOD_ROWS)
    def test_values_are_those_of_the_python_reader(self, program: Program, name: str) -> None:
        assert_same_row(program, ROWS / name)


class TestProblems:
    """A refusal says which number was found, which was expected, and where."""

    @pytest.mark.parametrize("name", [name for name, fault in BAD_ROWS.items() if fault != "WRONG_LAYOUT"])
    def test_every_fault_has_its_text_and_numbers(self, program: Program, name: str) -> None:
        printed = program.print(ROWS / name)
        assert printed["status"] == BAD_ROWS[name]
        assert printed["text"] == RowFault[BAD_ROWS[name]].value
        assert printed["what"]
        assert printed["found"] != printed["expected"]
        assert 0 <= printed["offset"] <= (ROWS / name).stat().st_size

    @pytest.mark.parametrize(
        ("name", "what", "offset", "found", "expected"),
        [
            ("bad_truncated_header.bias", "bytes in the file, at least", 447, 447, 448),
            ("bad_version.bias", "format version", 8, 2, 1),
            ("bad_dtype.bias", "code of the dtype, 1 or 10", 20, 16, 1),
            ("bad_head.bias", "rank of a head tensor, 1 to 3", 152, 4, 3),
            ("bad_label_count.bias", "labels of a regression", 72, 2, 1),
            ("bad_truncated.bias", "bytes in the file", 528, 528, 532),
            ("bad_trailing_bytes.bias", "bytes in the file", 532, 533, 532),
            ("bad_not_finite.bias", "values that are finite", 448, 0, 21),
        ],
    )
    def test_numbers(self, program: Program, name: str, what: str, offset: int, found: int, expected: int) -> None:
        printed = program.print(ROWS / name)
        assert [printed[key] for key in ("what", "offset", "found", "expected")] == [what, offset, found, expected]


class TestForgedRows:
    """Rows whose checksums are right and whose fields are not."""

    def test_each_rule_on_both_sides(self, program: Program, tmp_path: Path) -> None:
        cases = [forge({at: value}) for at, value in FIELDS]
        cases += [forge({HEAD_COUNT_AT: u32(count)}, encode_row(FULL_HEAD)) for count in (15, 16, 17)]
        expected = write_cases(tmp_path, cases)
        assert set(expected.values()) == {"OK"} | {fault.name for fault in list(RowFault)[5:]} - {"NOT_FINITE"}
        program.check_files(tmp_path, expected)

    @pytest.mark.parametrize(
        ("name", "bits"), [("good_float32.bias", FLOAT32_BITS), ("good_float16.bias", FLOAT16_BITS)]
    )
    def test_every_value_is_finite(
        self, program: Program, tmp_path: Path, name: str, bits: tuple[str, list[int], list[int]]
    ) -> None:
        code, finite, others = bits
        good = (ROWS / name).read_bytes()
        places = range(HEADER_SIZE, len(good), struct.calcsize(code))
        cases = [forge({at: struct.pack(f"<{code}", value)}, good) for at in places for value in finite + others]
        expected = write_cases(tmp_path, cases)
        wanted = ["OK"] * len(finite) + ["NOT_FINITE"] * len(others)
        assert list(expected.values()) == wanted * len(places)
        program.check_files(tmp_path, expected)

    def test_random_fields(self, program: Program, tmp_path: Path) -> None:
        random = np.random.default_rng(0)
        places = [*range(FLAGS_AT, PAYLOAD_CHECKSUM_AT, 4), *range(HEAD_TABLE_AT, HEAD_TABLE_AT + 80, 4)]
        cases = []
        for _ in range(400):
            changes = {}
            for _ in range(random.integers(1, 4)):
                at = int(random.choice(places))
                changes[at] = u32(int(random.choice([0, 1, 2, 3, 4, 5, 8, 10, 16, 65536, UINT32_MAX])))
            cases.append(forge(changes))
        program.check_files(tmp_path, write_cases(tmp_path, cases))

    def test_faults_are_found_in_order(self, program: Program, tmp_path: Path) -> None:
        """From the last check to the first: each new fault hides those before."""
        row = forge({LAYOUT_DIGEST_AT: b"\xff", HEADER_SIZE: u32(0x7F800000)})
        cases = [row]
        for changes in [
            {PAYLOAD_CHECKSUM_AT: u32(0)},
            {FILE_SIZE_AT: u32(533)},
            {FILE_SIZE_AT: u32(531)},
            {LABELS_AT: u32(0)},
            {HEAD_COUNT_AT: u32(17)},
            {TASK_VERSION_AT: u32(0)},
            {PROBLEM_TYPE_AT: u32(6)},
            {DTYPE_AT: u32(0)},
            {RESERVED_AT: b"\1"},
        ]:
            row = forge(changes, row)
            cases.append(row)
        for at in (HEADER_CHECKSUM_AT, 12, 8, 0):
            row = row[:at] + b"\xfe" + row[at + 1 :]
            cases.append(row)
        cases.append(row[:447])
        expected = write_cases(tmp_path, cases)
        assert list(expected.values()) == [fault.name for fault in reversed(RowFault)][1:]
        program.check_files(tmp_path, expected)


class TestValues:
    @pytest.mark.parametrize("dtype", [np.float32, np.float16])
    def test_a_random_row(self, program: Program, tmp_path: Path, dtype: type[np.floating[Any]]) -> None:
        """Values of every size, and 16 head tensors of every rank, some of which the task lacks."""
        random = np.random.default_rng(1)
        shapes = [(5,), (0,), (3, 4), (0, 4), (3, 0), (2, 3, 4), (2, 0, 4), (1, 1, 1)] * 2
        row = make_row(
            task="a.b_C-9",
            problem_type="token",
            labels=9,
            task_version=UINT32_MAX,
            biases=random_bits(random, 1000, dtype),
            head=tuple(random_bits(random, int(np.prod(shape)), dtype).reshape(shape) for shape in shapes),
        )
        write(tmp_path / "row", row)
        assert_same_row(program, tmp_path / "row")

    def test_every_float16_is_widened_exactly(self, program: Program, tmp_path: Path) -> None:
        """Subnormals and both zeros too."""
        values = np.arange(2**16, dtype=np.uint16).view(np.float16)
        write(tmp_path / "row", make_row(biases=values[np.isfinite(values)]))
        assert_same_row(program, tmp_path / "row")

    @pytest.mark.parametrize("problem_type", PROBLEM_CODES)
    def test_problem_types(self, program: Program, tmp_path: Path, problem_type: str) -> None:
        labels = {"regression": 1, "span": 2}.get(problem_type, 65_536)
        write(tmp_path / "row", make_row(problem_type=problem_type, labels=labels))
        assert_same_row(program, tmp_path / "row")

    def test_a_row_without_values(self, program: Program, tmp_path: Path) -> None:
        write(tmp_path / "row", make_row(biases=np.zeros(0, np.float32)))
        assert (tmp_path / "row").stat().st_size == HEADER_SIZE
        assert_same_row(program, tmp_path / "row")


@pytest.mark.slow
@needs_compiler
def test_the_cmake_project_passes_its_tests(tmp_path: Path) -> None:
    if shutil.which(CMAKE) is None:
        pytest.skip("needs cmake")
    for command in [
        [CMAKE, "-S", CPP, "-B", tmp_path, "-DBITFIT_BUILD_SESSION=OFF"],
        [CMAKE, "--build", tmp_path],
        [CMAKE.with_name("ctest"), "--test-dir", tmp_path, "--output-on-failure", "--no-tests=error"],
    ]:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    assert "100% tests passed" in done.stdout


def forge(changes: Mapping[int, bytes], base: bytes | None = None) -> bytes:
    """A row, the good float32 one by default, with other bytes and with checksums that agree with them."""
    data = bytearray((ROWS / "good_float32.bias").read_bytes() if base is None else base)
    for at, value in changes.items():
        data[at : at + len(value)] = value
    if any(at >= HEADER_SIZE for at in changes):
        data[PAYLOAD_CHECKSUM_AT : PAYLOAD_CHECKSUM_AT + 4] = u32(google_crc32c.value(bytes(data[HEADER_SIZE:])))
    data[HEADER_CHECKSUM_AT:HEADER_SIZE] = u32(google_crc32c.value(bytes(data[:HEADER_CHECKSUM_AT])))
    return bytes(data)


def write_cases(folder: Path, cases: Iterable[bytes]) -> dict[str, str]:
    """Write rows under their numbers. Gives the status that the Python reader has for each."""
    statuses = {}
    for number, data in enumerate(cases):
        (folder / str(number)).write_bytes(data)
        statuses[str(number)] = python_status(data)
    return statuses


def python_status(data: bytes) -> str:
    """The head's shapes are not compared with the layout's: the C++ reader has only the layout's digest."""
    try:
        row = decode_row(data)
    except RowError as error:
        return error.fault.name
    fits = row.layout_digest == LAYOUT.digest and row.biases.size == LAYOUT.bias_count
    return "OK" if fits else RowFault.WRONG_LAYOUT.name


def write(path: Path, row: BiasRow) -> None:
    path.write_bytes(encode_row(row))


def random_bits(random: np.random.Generator, count: int, dtype: type[np.floating[Any]]) -> np.ndarray:
    """Finite numbers, any bit pattern as likely as any other."""
    size = np.dtype(dtype).itemsize
    values = np.frombuffer(random.bytes(2 * count * size), dtype)
    return values[np.isfinite(values)][:count]


def assert_same_row(program: Program, path: Path) -> None:
    """Both readers see the same row: every field, and every value bit by bit."""
    printed = program.print(path)
    row = decode_row(path.read_bytes())
    assert {key: value for key, value in printed.items() if key not in ("biases", "head")} == {
        "status": "OK",
        "version": 1,
        "flags": 0,
        "dtype": 1 if row.biases.dtype == np.float32 else 10,
        "layout_digest": row.layout_digest,
        "task": row.task,
        "task_version": row.task_version,
        "problem_type": PROBLEM_CODES[row.problem_type],
        "labels": row.labels,
        "floats": row.biases.dtype == np.float32 and sys.byteorder == "little",
    }
    assert [tuple(tensor["shape"]) for tensor in printed["head"]] == [tensor.shape for tensor in row.head]
    values = [printed["biases"], *(tensor["values"] for tensor in printed["head"])]
    for found, expected in zip(values, (row.biases, *row.head), strict=True):
        assert np.array(found, np.float32).tobytes() == expected.astype(np.float32).tobytes()
