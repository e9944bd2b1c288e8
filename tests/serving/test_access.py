"""Bearer tokens: who may ask, who may manage, and files of tokens that do not do."""

from __future__ import annotations

from pathlib import Path

import pytest

from bitfit_export.errors import UsageError
from bitfit_export.serving.access import ASK, MANAGE, Access, ForbiddenError, NoTokenError, read_tokens

ASKER, MANAGER = "asker-" + "a" * 20, "manager-" + "b" * 20


@pytest.fixture
def tokens(tmp_path: Path) -> Path:
    path = tmp_path / "tokens"
    path.write_text(f"# of the two teams\nask {ASKER}\n\nmanage {MANAGER}\n")
    return path


def test_without_tokens_everybody_asks_and_nobody_manages() -> None:
    Access().check(None, ASK)
    with pytest.raises(ForbiddenError, match="takes no tasks from requests"):
        Access().check(None, MANAGE)


def test_a_token_may_what_its_role_is(tokens: Path) -> None:
    access = Access(read_tokens(tokens))
    access.check(f"Bearer {ASKER}", ASK)
    access.check(f"bearer  {MANAGER}", ASK)
    access.check(f"Bearer {MANAGER}", MANAGE)
    with pytest.raises(ForbiddenError, match="may not manage"):
        access.check(f"Bearer {ASKER}", MANAGE)


@pytest.mark.parametrize(
    "header", [None, "", "Bearer", "Bearer ", f"Basic {ASKER}", ASKER, "Bearer unknown", f"Bearer {ASKER}x"]
)
def test_whatever_has_no_known_token_is_refused(tokens: Path, header: str | None) -> None:
    with pytest.raises(NoTokenError):
        Access(read_tokens(tokens)).check(header, ASK)


@pytest.mark.parametrize("text", ["ask short", "admin " + "a" * 20, "a" * 30, "ask " + "ä" * 20, "ask a b" + "c" * 20])
def test_a_line_that_is_not_a_role_and_a_token_is_named_without_its_text(tmp_path: Path, text: str) -> None:
    path = tmp_path / "tokens"
    path.write_text(f"ask {ASKER}\n{text}\n")
    with pytest.raises(UsageError, match=r"line 2 of .*tokens is not a role and a token") as caught:
        read_tokens(path)
    assert text.split(" ")[-1] not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"# nothing\n", b"\xff\xfe"])
def test_a_file_without_tokens_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "tokens").write_bytes(content)
    with pytest.raises(UsageError):
        read_tokens(tmp_path / "tokens")


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        read_tokens(tmp_path / "tokens")
