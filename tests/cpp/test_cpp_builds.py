"""The library as others build it: installed, freestanding, for Arm, by Clang; and the fuzz targets."""

from __future__ import annotations

import itertools
import json
import os
import re
import shlex
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bitfit_export.bundle import decode_row
from bitfit_export.runtime import BiasSession
from tests.cpp.conftest import (
    CMAKE,
    CPP,
    Driver,
    GetBundle,
    assert_same_lines,
    build,
    build_by_clang,
    cpp_run,
    logits_of,
    run,
)

ROWS = Path(__file__).parents[2] / "conformance" / "rows"
EXAMPLE = CPP / "example"
#: Targets that Clang looks at and does not build.
BY_CLANG = ("bitfit_run", "bitfit_bench", "bias_row_test", "c_test")
#: Executions of each fuzz target.
FUZZ_RUNS = 20_000


@pytest.fixture(scope="session")
def prefix(programs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("installed")
    run([CMAKE, "--install", programs, "--prefix", folder])
    return folder


class TestInstalled:
    def check(self, program: Path, bundle: Path, tmp_path: Path) -> None:
        """The example answers, takes a row that arrives, and keeps the old one when that is damaged."""
        lines = ["A warm, funny film.", "no"]
        missing = tmp_path / "missing.bias"
        command = [program, bundle, missing, "two_way", "three_way"]
        done = run(command, input="\n".join(lines) + "\n")
        expected = [BiasSession(bundle, threads=1).predict([line] * 2, ["two_way", "three_way"]) for line in lines]
        for line, answers in zip(done.stdout.splitlines(), expected, strict=True):
            words = line.split()
            assert [words[0], words[3]] == ["two_way", "three_way"]
            assert [words[1], words[4]] == [each["label"] for each in answers]
            scores = [each["score"] for each in answers]
            np.testing.assert_allclose([float(words[2]), float(words[5])], scores, rtol=0, atol=1e-5)
        shutil.copy(bundle / "tasks" / "two_way.bias", missing)
        loaded = run(command, input="no\n")
        assert loaded.stderr == f"loaded {missing}\n"
        missing.write_bytes(missing.read_bytes()[:-1])
        refused = run(command, input="no\n")
        assert "is refused: truncated payload" in refused.stderr
        assert refused.stdout == loaded.stdout

    def test_the_programs_run_where_they_were_moved_to(
        self, prefix: Path, get_bundle: GetBundle, tmp_path: Path
    ) -> None:
        """They find ONNX Runtime where it was at build time."""
        shutil.copytree(prefix / "bin", tmp_path / "bin")
        done = run([tmp_path / "bin" / "bitfit_run", get_bundle("table"), "--task", "two_way", "--text", "fine"])
        assert json.loads(done.stdout)["label"] in ("negative", "positive")

    def test_with_cmake(self, programs: Path, prefix: Path, get_bundle: GetBundle, tmp_path: Path) -> None:
        cache = (programs / "CMakeCache.txt").read_text(encoding="utf-8")
        root = re.search("^ONNXRUNTIME_ROOT:.*=(.*)$", cache, re.MULTILINE)
        assert root is not None
        options = [f"-DCMAKE_PREFIX_PATH={prefix}", f"-DONNXRUNTIME_ROOT={root[1]}"]
        run([CMAKE, "-S", EXAMPLE, "-B", tmp_path / "build", *options])
        run([CMAKE, "--build", tmp_path / "build"])
        self.check(tmp_path / "build" / "moderate", get_bundle("table"), tmp_path)

    def test_with_pkg_config(self, prefix: Path, get_bundle: GetBundle, tmp_path: Path) -> None:
        if shutil.which("pkg-config") is None:
            pytest.skip("needs pkg-config")
        (package,) = prefix.rglob("bitfit.pc")
        environment = os.environ | {"PKG_CONFIG_PATH": str(package.parent)}
        query = ["pkg-config", "--static", "--cflags", "--libs", "bitfit"]
        flags = run(query, env=environment).stdout.split()
        paths = [f"-Wl,-rpath,{flag[2:]}" for flag in flags if flag.startswith("-L")]
        run(["c++", "-std=c++17", EXAMPLE / "moderate.cpp", *flags, *paths, "-o", tmp_path / "moderate"])
        self.check(tmp_path / "moderate", get_bundle("table"), tmp_path)


class TestFreestanding:
    """The C API for rows, on a microcontroller."""

    FLAGS = (
        "-mcpu=cortex-m4",
        "-mthumb",
        "-Os",
        "-ffreestanding",
        "-Wall",
        "-Wextra",
        "-Werror",
        f"-I{CPP / 'include'}",
    )

    def test_cortex_m4(self, tmp_path: Path) -> None:
        if shutil.which("arm-none-eabi-g++") is None:
            pytest.skip("needs arm-none-eabi-g++ and its C++ headers")
        options = ["-std=c++17", "-fno-exceptions", "-fno-rtti", *self.FLAGS, "-c"]
        run(["arm-none-eabi-g++", *options, CPP / "src" / "c_row.cpp", "-o", tmp_path / "row.o"])
        run(["arm-none-eabi-gcc", "-std=c11", *self.FLAGS, "-c", EXAMPLE / "device.c", "-o", tmp_path / "device.o"])
        missing = set()
        for name in ("row.o", "device.o"):
            listed = run(["arm-none-eabi-nm", "-u", tmp_path / name]).stdout
            missing |= {symbol for symbol in re.findall(r"U (\w+)", listed) if not symbol.startswith("bitfit_row_")}
        device = {"row_in_flash", "row_in_flash_size", "frozen_layout_digest", "frozen_bias_count", "bias_memory"}
        assert missing <= device | {"memcpy", "memcmp", "memmove", "memset"}
        text = int(run(["arm-none-eabi-size", tmp_path / "row.o"]).stdout.splitlines()[1].split()[0])
        assert text < 3000, "bytes of code for reading rows"

    def test_it_reads_a_golden_row(self, tmp_path: Path) -> None:
        """The example for devices, with a file in place of the flash."""
        if shutil.which("c++") is None or shutil.which("cc") is None:
            pytest.skip("needs cc and c++")
        data = (ROWS / "good_float32.bias").read_bytes()
        index = json.loads((ROWS / "index.json").read_text(encoding="utf-8"))
        digest, last = bytes.fromhex(index["layout_digest"]), index["layout"]["biases"][-1]
        source = tmp_path / "board.c"
        source.write_text(
            "#include <stdint.h>\n#include <stdio.h>\n"
            f"const uint8_t row_in_flash[] __attribute__((aligned(8))) = {{{','.join(map(str, data))}}};\n"
            f"const uint32_t row_in_flash_size = {len(data)};\n"
            f"const uint8_t frozen_layout_digest[32] = {{{','.join(map(str, digest))}}};\n"
            f"const uint32_t frozen_bias_count = {last['offset'] + last['shape'][0]};\n"
            "volatile float bias_memory[64];\nint load_biases(void);\n"
            "int main(void) {\n  int status = load_biases();\n"
            '  for (uint32_t i = 0; i < frozen_bias_count; ++i) printf("%.9g\\n", (double)bias_memory[i]);\n'
            "  return status;\n}\n",
            encoding="utf-8",
        )
        flags = [f"-I{CPP / 'include'}", "-Wall", "-Wextra", "-Werror", "-c"]
        run(["c++", "-std=c++17", *flags, CPP / "src" / "c_row.cpp", "-o", tmp_path / "row.o"])
        for path in (EXAMPLE / "device.c", source):
            run(["cc", "-std=c11", *flags, path, "-o", tmp_path / f"{path.stem}.o"])
        objects = [tmp_path / f"{name}.o" for name in ("row", "device", "board")]
        run(["c++", *objects, "-o", tmp_path / "board"])
        found = np.array(run([tmp_path / "board"]).stdout.split(), np.float32)
        np.testing.assert_array_equal(found, decode_row(data).biases)


@pytest.mark.slow
def test_a_build_without_tokenizers_runs_ids_and_refuses_texts(get_bundle: GetBundle, batch: dict[str, Any]) -> None:
    bundle = get_bundle("table")
    session = Driver(build("ids", "session_test") / "tests" / "session_test", bundle)
    expected = BiasSession(bundle, threads=1).run("two_way", **batch)
    np.testing.assert_allclose(logits_of(session("run", tasks=["two_way"], **batch)), expected, rtol=0, atol=1e-5)
    refused = session("predict", tasks=["two_way"], texts=["A warm, funny film."])
    assert refused["code"] == "bundle_error"
    assert "is a tokenizer file, which this build cannot read, expected ids" in refused["message"]
    assert refused["hint"] == "build the library with BITFIT_TOKENIZERS=ON"
    session.close()


@pytest.mark.slow
def test_a_build_without_signatures_refuses_trusted_keys(get_bundle: GetBundle) -> None:
    session = Driver(build("ids", "session_test") / "tests" / "session_test", get_bundle("table"), "key=" + "0" * 64)
    assert session.opened["code"] == "usage_error"
    assert session.opened["message"] == "this library was built without signatures, expected no trusted keys"
    session.close()


@pytest.mark.slow
class TestArm:
    """Cross-compiled for 64-bit Arm on Linux, and run by qemu."""

    TARGETS = ("bias_row_test", "bitfit_run")

    @pytest.fixture
    def emulator(self, tmp_path: Path) -> list[str | Path]:
        """With system files of an Arm machine of one core: ONNX Runtime reads what processor it runs on."""
        libraries = Path("/usr/aarch64-linux-gnu/lib")
        if shutil.which("qemu-aarch64") is None or not libraries.exists():
            pytest.skip("needs qemu-aarch64 and the libraries of g++-aarch64-linux-gnu")
        root = tmp_path / "root"
        files = {
            "sys/devices/system/cpu/possible": "0\n",
            "sys/devices/system/cpu/present": "0\n",
            "proc/cpuinfo": "processor : 0\nFeatures : fp asimd\nCPU implementer : 0x41\nCPU part : 0xd0c\n",
        }
        for name, text in files.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(text, encoding="utf-8")
        (root / "lib").symlink_to(libraries)
        return ["qemu-aarch64", "-L", root]

    def test_rows(self, emulator: list[str | Path]) -> None:
        run(
            [
                *emulator,
                build("aarch64-test", *self.TARGETS) / "tests" / "bias_row_test",
                "flips",
                ROWS / "good_float32.bias",
            ]
        )

    def test_answers(self, programs: Path, emulator: list[str | Path], get_bundle: GetBundle) -> None:
        arguments = [get_bundle("table"), "--task", "three_way", "--threads", "1", "--text", "A warm, funny film."]
        found = run([*emulator, build("aarch64-test", *self.TARGETS) / "bitfit_run", *arguments])
        assert_same_lines(found.stdout, cpp_run(programs, *arguments).stdout)


@pytest.mark.slow
def test_clang_takes_what_it_does_not_build() -> None:
    """The programs, and the tests of the C API and of rows, with the same warnings as errors."""
    commands = json.loads((build_by_clang() / "compile_commands.json").read_text(encoding="utf-8"))
    by_target: dict[str, list[dict[str, str]]] = {}
    for each in commands:
        by_target.setdefault(Path(each["output"].split(".dir")[0]).name, []).append(each)
    for each in itertools.chain.from_iterable(by_target[name] for name in BY_CLANG):
        run([*shlex.split(each["command"]), "-fsyntax-only"], cwd=each["directory"])


@pytest.mark.slow
class TestFuzzing:
    """A fixed number of executions from real files as seeds; a crash, a leak or a sanitizer's report fails."""

    def fuzz(self, name: str, seeds: Sequence[bytes], tmp_path: Path, runs: int = FUZZ_RUNS) -> None:
        corpus = tmp_path / "corpus"
        corpus.mkdir()
        for number, data in enumerate(seeds):
            (corpus / f"seed-{number}").write_bytes(data)
        options = [f"-runs={runs}", "-seed=1", "-max_len=8192", "-timeout=120", f"-artifact_prefix={tmp_path}/"]
        # libFuzzer's own limit of memory reads a peak that a process inherits from the one that starts it, here pytest.
        options += ["-rss_limit_mb=0", "-malloc_limit_mb=2048"]
        limits = {"ASAN_OPTIONS": "hard_rss_limit_mb=2048"}
        done = run([build_by_clang() / "fuzz" / f"{name}_fuzzer", corpus, *options], env=os.environ | limits)
        assert f"Done {runs} runs" in done.stderr

    def test_rows(self, tmp_path: Path) -> None:
        self.fuzz("row", [path.read_bytes() for path in sorted(ROWS.glob("*.bias"))], tmp_path)

    def test_manifests(self, tmp_path: Path, get_bundle: GetBundle) -> None:
        manifests = [(get_bundle(kind) / "manifest.json").read_bytes() for kind in ("table", "static")]
        self.fuzz("manifest", [json.dumps(json.loads(each)).encode() for each in manifests], tmp_path)

    def test_models(self, tmp_path: Path, get_bundle: GetBundle) -> None:
        self.fuzz("model", [(get_bundle("table") / "model.onnx").read_bytes()], tmp_path)

    def test_tokenizers(self, tmp_path: Path) -> None:
        self.fuzz("tokenizer", [each + b"\0don't a [SEP]" for each in tokenizer_seeds()], tmp_path)


def tokenizer_seeds() -> list[bytes]:
    """Small files of both kinds."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    wordpiece = Tokenizer(models.WordPiece({"[UNK]": 0, "[SEP]": 1, "a": 2, "##b": 3, "don": 4}, unk_token="[UNK]"))
    wordpiece.normalizer = normalizers.BertNormalizer()
    wordpiece.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    wordpiece.post_processor = processors.TemplateProcessing(
        single="[SEP] $A", pair="$A [SEP] $B:1", special_tokens=[("[SEP]", 1)]
    )
    wordpiece.add_special_tokens(["[SEP]"])
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {each: number for number, each in enumerate([*alphabet, "do", "don", "Ġa"])}
    byte_level = Tokenizer(models.BPE(vocabulary, [("d", "o"), ("do", "n"), ("Ġ", "a")]))
    byte_level.pre_tokenizer = pre_tokenizers.ByteLevel()
    byte_level.post_processor = processors.RobertaProcessing(("a", 1), ("b", 2))
    return [each.to_str().encode() for each in (wordpiece, byte_level)]
