"""`bitfit keygen`, `bitfit sign`, and commands that trust some keys."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.cli.conftest import Bitfit

pytest.importorskip("cryptography", reason="needs bitfit-export[sign]")


@pytest.fixture
def bundle(tiny_bundle: Path, workplace: Path) -> Path:
    folder = workplace / "bundle"
    shutil.copytree(tiny_bundle, folder)
    return folder


def test_a_signed_bundle_runs_where_its_key_is_trusted(bitfit: Bitfit, bundle: Path) -> None:
    made = bitfit("keygen", "vendor.key")
    assert made.status == 0
    public = made.out.strip()
    assert Path("vendor.key.pub").read_text().strip() == public
    ask = ["run", bundle, "--task", "two_way", "--text", "A text."]
    unsigned = bitfit(*ask, "--trusted-key", public)
    assert unsigned.status == 2
    assert "error: no signature: " in unsigned.err
    assert "hint: bitfit sign" in unsigned.err
    signed = bitfit("sign", bundle, "--key", "vendor.key")
    assert signed.out.split() == [
        str(bundle / name)
        for name in (
            "manifest.json.sig",
            "tasks/score.bias.sig",
            "tasks/three_way.bias.sig",
            "tasks/two_way.bias.sig",
        )
    ]
    trusting = bitfit(*ask, "--trusted-key", "vendor.key.pub", "--state", "state.json")
    assert (trusting.status, trusting.out) == (0, bitfit(*ask).out)
    kept = json.loads(Path("state.json").read_text())
    assert kept == {"format_version": 1, "tasks": {"score": 1, "three_way": 1, "two_way": 1}}


def test_a_damaged_row_is_not_signed(bitfit: Bitfit, bundle: Path) -> None:
    bitfit("keygen", "vendor.key")
    row = bundle / "tasks" / "score.bias"
    row.write_bytes(row.read_bytes()[:-1])
    for path in (row, bundle):
        done = bitfit("sign", path, "--key", "vendor.key")
        assert (done.status, done.out) == (2, "")
    assert not list(bundle.rglob("*.sig"))


def test_a_key_that_is_none_is_one_clear_error(bitfit: Bitfit, bundle: Path) -> None:
    assert "error: the key none cannot be read" in bitfit("sign", bundle, "--key", "none").err
    ask = ["run", bundle, "--task", "score", "--text", "A text."]
    assert "error: the public key none cannot be read" in bitfit(*ask, "--trusted-key", "none").err
    bitfit("keygen", "vendor.key")
    assert "hint: keys are not replaced" in bitfit("keygen", "vendor.key").err
