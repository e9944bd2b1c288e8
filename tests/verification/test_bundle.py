"""What verification lets through and what it does not, on both sides of each bound."""

from __future__ import annotations

import copy
import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest
import transformers
from tokenizers.processors import TemplateProcessing

from bitfit_export.base_model.loading import BaseModel
from bitfit_export.delta import TaskDelta
from bitfit_export.errors import BaseMismatchError, BitfitError, InputError, VerificationError
from bitfit_export.runtime import BiasSession
from bitfit_export.verification.bundle import PROBE, shuffled_tasks, verify_bundle
from bitfit_export.verification.comparison import FP32_TOLERANCE, VerifyReport, check_report, compare_logits
from tests.conftest import MakeDelta
from tests.traces import compile_bundle

EXPECTED = [np.array([1.0, 2.0]), np.array([3.0, -1.0])]


def test_the_tolerance_is_the_one_that_is_documented() -> None:
    assert FP32_TOLERANCE == 1e-4


@pytest.mark.parametrize(("error", "passed"), [(0.0, True), (0.9e-4, True), (1.1e-4, False), (np.nan, False)])
def test_a_difference_passes_up_to_the_tolerance(error: float, passed: bool) -> None:
    comparison = compare_logits("task", [EXPECTED[0] + error, EXPECTED[1]], EXPECTED)
    assert comparison.passed is passed
    if error == error:
        assert comparison.max_difference == pytest.approx(error)
        assert comparison.mean_difference == pytest.approx(error / 2)


def test_another_decision_fails_however_small_the_difference() -> None:
    expected = [np.array([1.0, 1.0 + 1e-6])]
    comparison = compare_logits("task", [np.array([1.0 + 2e-6, 1.0])], expected)
    assert comparison.max_difference < FP32_TOLERANCE
    assert comparison.argmax_agreement == 0.0
    assert not comparison.passed


def test_another_number_of_logits_fails() -> None:
    with pytest.raises(VerificationError, match="another number of logits"):
        compare_logits("task", [np.zeros(3)], [np.zeros(2)])


def test_a_failed_report_names_the_worst_comparison() -> None:
    good = compare_logits("good", EXPECTED, EXPECTED)
    bad = compare_logits("bad", [EXPECTED[0] + 0.5, EXPECTED[1]], EXPECTED)
    check_report(VerifyReport((good,), seed=0))
    with pytest.raises(VerificationError, match=r"1 of 2 comparisons .* bad: largest difference 5\.00e-01") as caught:
        check_report(VerifyReport((good, bad), seed=0))
    assert caught.value.exit_code == 1


def test_a_good_bundle_passes_with_any_seed(
    tiny_bundle: Path, tiny_base: BaseModel, tiny_deltas: dict[str, TaskDelta]
) -> None:
    for seed in (0, 1):
        report = verify_bundle(tiny_bundle, tiny_base, tiny_deltas, seed=seed)
        assert [each.name for each in report.comparisons] == [*tiny_deltas, "mixed"]
        assert 0 < report.max_difference <= FP32_TOLERANCE
        assert all(each.items == 34 for each in report.comparisons)


def test_one_wrong_bias_value_is_found(
    tiny_bundle: Path, tiny_base: BaseModel, tiny_deltas: dict[str, TaskDelta]
) -> None:
    """The deltas are changed after the bundle was made: what PyTorch then says is another task."""
    name = "encoder.layer.1.intermediate.dense.bias"
    changed = dict(tiny_deltas["two_way"].biases)
    changed[name] = changed[name].copy()
    changed[name][0] += 1.0
    deltas = tiny_deltas | {"two_way": dataclasses.replace(tiny_deltas["two_way"], biases=changed)}
    with pytest.raises(VerificationError, match="comparisons with PyTorch failed"):
        verify_bundle(tiny_bundle, tiny_base, deltas)


def test_the_last_position_is_compared(
    tiny_bundle: Path, tiny_base: BaseModel, tiny_deltas: dict[str, TaskDelta]
) -> None:
    module = copy.deepcopy(tiny_base.module)
    module.embeddings.position_embeddings.weight[-1, 0] += 1.0
    with pytest.raises(VerificationError, match="comparisons with PyTorch failed"):
        verify_bundle(tiny_bundle, dataclasses.replace(tiny_base, module=module), tiny_deltas)


def test_another_tokenizer_is_found(
    tiny_bundle: Path, tiny_base: BaseModel, tiny_deltas: dict[str, TaskDelta], tmp_path: Path
) -> None:
    """A bundle whose tokenizer keeps capital letters apart, put in with its own digests."""
    from bitfit_export.bundle import read_manifest, record_file, write_manifest

    bundle = shutil.copytree(tiny_bundle, tmp_path / "bundle")
    path = bundle / "tokenizer.json"
    path.write_text(
        path.read_text()
        .replace('"lowercase":true', '"lowercase":false')
        .replace('"lowercase": true', '"lowercase": false')
    )
    manifest = read_manifest(bundle)
    files = manifest.files | {"tokenizer.json": record_file(path)}
    write_manifest(bundle, dataclasses.replace(manifest, files=files))
    with pytest.raises(VerificationError, match="tokenizer gives other input_ids"):
        verify_bundle(bundle, tiny_base, tiny_deltas)


@pytest.mark.slow
def test_a_task_may_be_called_probe_or_mixed(tiny_base: BaseModel, make_delta: MakeDelta, tmp_path: Path) -> None:
    """It is compared as any other, and what verification makes up takes another name."""
    deltas = {name: make_delta(tiny_base, name, seed=seed) for seed, name in enumerate((PROBE, "mixed"))}
    compiled = compile_bundle(tiny_base, deltas, tmp_path)
    report = verify_bundle(tmp_path, tiny_base, deltas, packer=compiled.packer)
    assert [each.name for each in report.comparisons] == ["probe", "mixed", "probe_", "mixed_"]
    changed = dataclasses.replace(deltas[PROBE], head=deltas["mixed"].head)
    with pytest.raises(VerificationError, match="comparisons with PyTorch failed"):
        verify_bundle(tmp_path, tiny_base, deltas | {PROBE: changed}, packer=compiled.packer)


@pytest.mark.slow
def test_an_empty_text_of_a_tokenizer_that_adds_no_token_is_left_out(
    tiny_base: BaseModel, make_delta: MakeDelta, tmp_path: Path
) -> None:
    """As decoders have it: GPT-2's gives no token for an empty text, which no runtime answers."""
    backend = copy.deepcopy(tiny_base.tokenizer.backend_tokenizer)
    backend.post_processor = TemplateProcessing(single="$A", pair="$A $B:1", special_tokens=[])
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="[UNK]", pad_token="[PAD]")
    tokenizer.model_input_names = tiny_base.tokenizer.model_input_names
    base = dataclasses.replace(tiny_base, tokenizer=tokenizer)
    assert base.tokenizer("")["input_ids"] == []
    deltas = {"own": make_delta(base, "own", pooling="mean")}
    compiled = compile_bundle(base, deltas, tmp_path)
    report = verify_bundle(tmp_path, base, deltas, packer=compiled.packer)
    assert all(each.passed for each in report.comparisons)
    with pytest.raises(InputError, match="item 1 has no token"):
        BiasSession(tmp_path).predict(["fine", ""], "own")


def test_every_one_of_many_tasks_is_in_the_mixed_batches_by_chance() -> None:
    chosen = {name for seed in range(40) for name in shuffled_tasks([str(number) for number in range(50)], 32, seed)}
    assert len(chosen) == 50


def test_another_base_is_refused(tiny_bundle: Path, tiny_base: BaseModel, tiny_deltas: dict[str, TaskDelta]) -> None:
    with pytest.raises(BaseMismatchError, match="was compiled from tiny-bert"):
        verify_bundle(tiny_bundle, dataclasses.replace(tiny_base, digest="3" * 64), tiny_deltas)


def test_a_file_that_was_tampered_with_is_found(
    tiny_bundle: Path, tiny_base: BaseModel, tiny_deltas: dict[str, TaskDelta], tmp_path: Path
) -> None:
    bundle = shutil.copytree(tiny_bundle, tmp_path / "bundle")
    weights = bundle / "model.onnx.data"
    data = bytearray(weights.read_bytes())
    data[1000] ^= 1
    weights.write_bytes(data)
    with pytest.raises(BitfitError, match=r"model\.onnx\.data"):
        verify_bundle(bundle, tiny_base, tiny_deltas)
