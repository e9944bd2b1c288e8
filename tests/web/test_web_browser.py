"""The package and its demo page in a headless Chromium."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.web.conftest import RunNode

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("script", ["sessions", "demo"])
def test_each_page(run_node: RunNode, session_fixtures: Path, chromium: str, tmp_path: Path, script: str) -> None:
    bundles = [session_fixtures / name / "bundle" for name in ("table", "portable")]
    run_node("test/browser/make_site.mjs", bundles[0], tmp_path / "site", bundles[1])
    environment = {
        "BITFIT_CHROMIUM": chromium,
        "BITFIT_WEB_DEMO": str(tmp_path / "site"),
        "BITFIT_WEB_FIXTURES": str(session_fixtures),
    }
    run_node(f"--test --test-reporter=tap test/browser/{script}.test.mjs", environment=environment)
