"""The shipped tasks answer in Node as they do in Python: the demo's sentences, and dev examples of every task.

`--dev-examples N` takes N examples per task in place of 8; 0 is all.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from bitfit_export.runtime import BiasSession
from bitfit_export.runtime.text.json_text import text_of
from tests.conftest import real_examples
from tests.web.conftest import WEB, RunNode
from tests.web.test_web_tokenizer import places_in

TASKS = ("cola", "ewt", "mrpc", "rte", "squad", "sst2", "stsb")
PAIRS, SPANS = ("mrpc", "rte", "stsb"), ("squad",)
#: Of a score; the engines add in another order.
TOLERANCE = 1e-4
FEW = 8
TEXT_KEYS = ("text", "text_pair", "sentence", "sentence1", "sentence2", "question", "context", "tokens")

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Asker:
    """One bundle of all shipped tasks, opened in Python and in Node."""

    bundle: Path
    run_node: RunNode

    def assert_same_answers(self, questions: list[tuple[str, Any]]) -> None:
        """Ask each task its text in one call on both sides, for a process of Node takes seconds to open a model."""
        tasks, texts = [task for task, _ in questions], [text for _, text in questions]
        question = {"texts": [as_object(text) for text in texts], "tasks": tasks, "options": {"truncate": True}}
        found = json.loads(self.run_node("test/node/answer.mjs", self.bundle, stdin=json.dumps(question)))
        expected = BiasSession(self.bundle, threads=1).predict(texts, tasks, truncate=True)
        for (task, text), mine, theirs in zip(questions, found, expected, strict=True):
            whole = text if isinstance(text, str) else " ".join(text) if isinstance(text, list) else text[1]
            places = places_in(whole)
            for one, other in zip(
                *(each if isinstance(each, list) else [each] for each in (mine, theirs)), strict=True
            ):
                assert one.pop("score") == pytest.approx(other.pop("score"), abs=TOLERANCE), (task, text)
                other |= {key: places[other[key]] for key in ("start", "end") if key in other}
                assert one == other, (task, text)


@pytest.fixture(scope="module")
def asker(shipped_bundle: Path, run_node: RunNode) -> Asker:
    return Asker(shipped_bundle, run_node)


def as_object(text: Any) -> Any:
    """A text as the package takes it."""
    if isinstance(text, list):
        return {"tokens": text}
    return {"text": text[0], "text_pair": text[1]} if isinstance(text, tuple) else text


def text_in(example: Mapping[str, Any]) -> Any:
    """The text of a dev example."""
    return text_of({key: example[key] for key in TEXT_KEYS if key in example}, "the example")


def test_the_sentences_of_the_demo(asker: Asker) -> None:
    script = (WEB / "demo" / "demo.js").read_text(encoding="utf-8")
    listed = re.search(r"const EXAMPLES = (\[.*?\n\]);", script, re.DOTALL)
    assert listed is not None
    examples = json.loads(re.sub(r",\s*\]$", "]", listed[1]))
    assert len(examples) == 4
    asker.assert_same_answers(
        [
            (task, (text, second) if task in PAIRS else (question, text) if task in SPANS else text)
            for task in TASKS
            for _, text, second, question in examples
        ]
    )


@pytest.mark.data
def test_dev_examples(asker: Asker, request: pytest.FixtureRequest) -> None:
    option = request.config.getoption("--dev-examples")
    count = FEW if option == 60 else option or None
    asker.assert_same_answers([(task, text_in(each)) for task in TASKS for each in real_examples(task)[:count]])
