"""The shipped tasks answer in Node as they do in Python: the demo's sentences, and dev examples of every task.

`--dev-examples N` takes N examples per task in place of 8; 0 is all.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from bitfit_export.cli.input_lines import text_of
from bitfit_export.runtime import BiasSession
from tests.conftest import compile_shipped, real_examples
from tests.web.conftest import WEB, RunNode
from tests.web.test_web_tokenizer import places_in

TASKS = ("cola", "ewt", "mrpc", "rte", "squad", "sst2", "stsb")
PAIRS, SPANS = ("mrpc", "rte", "stsb"), ("squad",)
#: Of a score; the engines add in another order.
TOLERANCE = 1e-4
FEW = 8
TEXT_KEYS = ("text", "text_pair", "sentence", "sentence1", "sentence2", "question", "context", "tokens")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory, minilm_folder: Path) -> Path:
    """A bundle of all shipped tasks."""
    folder = tmp_path_factory.mktemp("shipped")
    compile_shipped(TASKS, folder)
    return folder


def given_to_node(example: Mapping[str, Any]) -> Any:
    """A dev example as the package takes texts."""
    text = text_of({key: example[key] for key in TEXT_KEYS if key in example}, "the example")
    return {"tokens": text} if isinstance(text, list) else text if isinstance(text, str) else as_pair(text)


def as_pair(text: tuple[str, str]) -> dict[str, str]:
    return {"text": text[0], "text_pair": text[1]}


def assert_same_answers(run_node: RunNode, bundle: Path, task: str, texts: list[Any], given: list[Any]) -> None:
    question = {"texts": given, "tasks": task, "options": {"truncate": True}}
    found = json.loads(run_node("test/node/answer.mjs", bundle, stdin=json.dumps(question)))
    expected = BiasSession(bundle, tasks=[task], threads=1).predict(texts, task, truncate=True)
    for text, mine, theirs in zip(texts, found, expected, strict=True):
        whole = text if isinstance(text, str) else " ".join(text) if isinstance(text, list) else text[1]
        for one, other in zip(*(each if isinstance(each, list) else [each] for each in (mine, theirs)), strict=True):
            assert one.pop("score") == pytest.approx(other.pop("score"), abs=TOLERANCE), text
            places = places_in(whole)
            assert one == other | {key: places[other[key]] for key in ("start", "end") if key in other}, text


def test_the_sentences_of_the_demo(run_node: RunNode, bundle: Path) -> None:
    script = (WEB / "demo" / "demo.js").read_text(encoding="utf-8")
    listed = re.search(r"const EXAMPLES = (\[.*?\n\]);", script, re.DOTALL)
    assert listed is not None
    examples = json.loads(re.sub(r",\s*\]$", "]", listed[1]))
    assert len(examples) == 4
    for task in TASKS:
        texts: list[Any] = [
            (text, second) if task in PAIRS else (question, text) if task in SPANS else text
            for _, text, second, question in examples
        ]
        given = [as_pair(text) if isinstance(text, tuple) else text for text in texts]
        assert_same_answers(run_node, bundle, task, texts, given)


@pytest.mark.data
@pytest.mark.parametrize("task", TASKS)
def test_dev_examples(run_node: RunNode, bundle: Path, task: str, request: pytest.FixtureRequest) -> None:
    option = request.config.getoption("--dev-examples")
    count = FEW if option == 60 else option or None
    examples = real_examples(task)[:count]
    texts = [text_of({key: each[key] for key in TEXT_KEYS if key in each}, "the example") for each in examples]
    assert_same_answers(run_node, bundle, task, texts, [given_to_node(each) for each in examples])
