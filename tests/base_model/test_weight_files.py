"""What a checkpoint's files hold, from their headers."""

from __future__ import annotations

import pytest

from bitfit_export.base_model.weight_files import StoredTensor, find_wrapper, narrowest_dtype, stored_dtype, wrapper_in


def stored(*dtypes: str) -> dict[str, StoredTensor]:
    return {f"tensor.{number}": StoredTensor(dtype, (2, 3)) for number, dtype in enumerate(dtypes)}


@pytest.mark.parametrize(
    ("dtypes", "exact", "narrowest"),
    [
        (("F32",), "float32", "float32"),
        (("BF16", "I64"), "bfloat16", "bfloat16"),
        (("F16", "BOOL", "U8"), "float16", "float16"),
        (("BF16", "F32"), "float32", "bfloat16"),
        (("F16", "F64"), "float64", "float16"),
        (("BF16", "F16"), "float32", "bfloat16"),  # neither holds the other's values
        (("I64",), "float32", "float32"),
        ((), "float32", "float32"),
    ],
)
def test_the_dtype_that_holds_all_weights_and_the_narrowest(
    dtypes: tuple[str, ...], exact: str, narrowest: str
) -> None:
    assert (stored_dtype(stored(*dtypes)), narrowest_dtype(stored(*dtypes))) == (exact, narrowest)


@pytest.mark.parametrize("dtype", ["F8_E4M3", "I8", "C64"])
def test_other_dtypes_are_refused_with_the_tensor(dtype: str) -> None:
    for find in (stored_dtype, narrowest_dtype):
        with pytest.raises(ValueError, match=rf"'tensor\.1' is stored as {dtype}, expected float64, float32"):
            find(stored("F32", dtype))


@pytest.mark.parametrize(
    ("found", "says"),
    [
        ("_orig_mod.bert.pooler.bias", "'_orig_mod.' in its names, which torch.compile puts there"),
        ("module.bert.pooler.bias", "'module.' in its names, which DistributedDataParallel puts there"),
        ("bert._orig_mod.pooler.bias", "'_orig_mod.' in its names"),
        ("module._orig_mod.bert.pooler.bias", "'_orig_mod.' in its names"),
        ("bert._checkpoint_wrapped_module.pooler.bias", "which activation checkpointing puts there"),
        ("model.bert.pooler.bias", "'model.' in front of its names"),
        ("lightning.net.bert.pooler.bias", "'lightning.net.' in front of its names"),
    ],
)
def test_a_wrapper_is_named(found: str, says: str) -> None:
    assert says in str(find_wrapper(["bert.pooler.bias"], [found]))


def test_other_names_are_no_wrappers() -> None:
    assert find_wrapper(["bert.pooler.bias"], ["bert.pooler.gate", "classifier.bias"]) is None
    assert find_wrapper([], []) is None
    assert wrapper_in(["encoder.modules.bias", "submodule.bias"]) is None
