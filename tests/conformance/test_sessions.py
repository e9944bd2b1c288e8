"""Every script of `conformance/sessions`, step by step."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from bitfit_export.bundle import read_manifest
from bitfit_export.errors import BitfitError, BundleError, InputError, RowError, UsageError
from bitfit_export.runtime import BiasSession
from tests.conformance.session_cases import (
    RUNS,
    SCRIPTS,
    TOLERANCE,
    batch_of,
    save_rows,
    session_bundle,
    with_infinity,
)
from tests.conftest import ENGINE_TARGETS, MakeDelta

if TYPE_CHECKING:
    from bitfit_export.base_model.loading import BaseModel

ERRORS: dict[str, type[BitfitError]] = {
    "bundle_error": BundleError,
    "row_error": RowError,
    "input_error": InputError,
    "usage_error": UsageError,
}


@pytest.fixture(scope="module")
def bundle_of(engine: str, tiny_base: BaseModel, make_delta: MakeDelta) -> Callable[[str], Path]:
    return functools.partial(session_bundle, tiny_base, make_delta, target=ENGINE_TARGETS[engine])


@pytest.mark.parametrize(("name", "layout"), RUNS)
def test_each_script(
    bundle_of: Callable[[str], Path], open_bundle: Callable[..., BiasSession], tmp_path: Path, name: str, layout: str
) -> None:
    bundle = bundle_of(layout)
    player = Player(functools.partial(open_bundle, bundle), save_rows(read_manifest(bundle).layout, tmp_path))
    for number, step in enumerate(SCRIPTS[name]["steps"]):
        where = f"step {number} of {name}: {step}"
        if "error" in step:
            with pytest.raises(ERRORS[step["error"]]) as caught:
                player.play(step)
            assert type(caught.value) is ERRORS[step["error"]], where
            if "fault" in step:
                assert isinstance(caught.value, RowError)
                assert caught.value.fault.name == step["fault"], where
        else:
            check(player.play(step), step, where)


class Player:
    """A session that does what a script says."""

    def __init__(self, open_bundle: Callable[..., BiasSession], rows: dict[str, Path]) -> None:
        self.open_bundle = open_bundle
        self.rows = rows

    def play(self, step: dict[str, Any]) -> Any:
        """Returns what the call returns."""
        if step["call"] == "open":
            self.session = self.open_bundle(tasks=step.get("tasks"))
            return None
        return getattr(self, step["call"])(step)

    def tasks(self, step: dict[str, Any]) -> Any:
        return sorted(self.session.tasks)

    def labels(self, step: dict[str, Any]) -> Any:
        return list(self.session.labels(step["task"]))

    def load_task(self, step: dict[str, Any]) -> Any:
        return self.session.load_task(self.rows[step["row"]], name=step.get("name"), labels=step.get("labels"))

    def unload_task(self, step: dict[str, Any]) -> Any:
        return self.session.unload_task(step["task"])

    def run(self, step: dict[str, Any]) -> Any:
        return self.session.run(one_or_all(step["tasks"]), **batch_of(step))

    def predict(self, step: dict[str, Any]) -> Any:
        texts = [text["words"] if isinstance(text, dict) else as_text(text) for text in step["texts"]]
        found = self.session.predict(texts, one_or_all(step["tasks"]), top_k=step.get("top_k"))
        return [each if isinstance(each, list) else [each] for each in found]


def as_text(text: str | list[str]) -> str | tuple[str, str]:
    """A list of two is a pair."""
    return text if isinstance(text, str) else (text[0], text[1])


def one_or_all(tasks: list[str]) -> str | list[str]:
    return tasks[0] if len(tasks) == 1 else tasks


def check(found: Any, step: dict[str, Any], where: str) -> None:
    expected = step.get("returns")
    if step["call"] == "run":
        np.testing.assert_array_equal(found, with_infinity(expected), err_msg=where)
    elif step["call"] == "predict":
        assert [[without_score(each) for each in answers] for answers in found] == [
            [without_score(each) for each in answers] for answers in expected
        ], where
        scores = [[each["score"] for answers in result for each in answers] for result in (found, expected)]
        np.testing.assert_allclose(*scores, rtol=0, atol=TOLERANCE, err_msg=where)
    else:
        assert found == expected, where


def without_score(answer: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in answer.items() if key != "score"}
