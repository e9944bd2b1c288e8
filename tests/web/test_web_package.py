"""The package in Node: its own tests, all of `conformance/`, its size."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.web.conftest import RunNode

pytestmark = pytest.mark.slow


def test_the_types_hold(run_node: RunNode) -> None:
    run_node("node_modules/.bin/../typescript/bin/tsc --noEmit")


def test_each_case_of_conformance_and_each_part(run_node: RunNode, session_fixtures: Path) -> None:
    run_node("--test --test-reporter=tap test/node/", environment={"BITFIT_WEB_FIXTURES": str(session_fixtures)})
