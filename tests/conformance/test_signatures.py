"""The signature files of `conformance/signatures`, which were made without a library."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

from bitfit_export.errors import SignatureError
from bitfit_export.signing import TrustedKeys

pytest.importorskip("cryptography", reason="needs bitfit-export[sign]")

FOLDER = Path(__file__).parents[2] / "conformance"
INDEX: dict[str, Any] = json.loads((FOLDER / "signatures" / "index.json").read_text())


@pytest.fixture(scope="module")
def trusted() -> TrustedKeys:
    return TrustedKeys([INDEX["keys"][name] for name in INDEX["trusted"]])


@pytest.mark.parametrize("case", INDEX["cases"])
def test_each_signature_has_its_fault(trusted: TrustedKeys, case: str, tmp_path: Path) -> None:
    expected = INDEX["cases"][case]
    data = (FOLDER / "rows" / expected["row"]).read_bytes()
    if expected["signature"] is not None:
        signature = (FOLDER / "signatures" / expected["signature"]).read_bytes()
        (tmp_path / "row.bias.sig").write_bytes(signature)
    fault = None
    try:
        trusted.check(data, tmp_path / "row.bias")
    except SignatureError as error:
        fault = error.fault.name.lower()
    assert fault == expected["fault"]


def test_the_committed_files_are_what_the_script_makes() -> None:
    spec = importlib.util.spec_from_file_location("make_signatures", FOLDER / "make_signatures.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    made = module.build()
    folder = FOLDER / "signatures"
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == made
