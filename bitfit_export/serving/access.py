"""Who may do what: bearer tokens with roles."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from pathlib import Path

from bitfit_export.bundle.regular_files import read_file
from bitfit_export.errors import BundleError, UsageError
from bitfit_export.serving.failures import ServiceError

__all__ = ["ASK", "MANAGE", "Access", "ForbiddenError", "NoTokenError", "read_tokens"]

#: Ask for answers and for what the tasks are.
ASK = "ask"
#: Load and unload tasks, besides.
MANAGE = "manage"
_ROLES = {ASK: {ASK}, MANAGE: {ASK, MANAGE}}
_LARGEST_FILE = 1 << 20
_SHORTEST_TOKEN = 16


class NoTokenError(ServiceError):
    """A request without a token that is known."""

    status = 401


class ForbiddenError(ServiceError):
    """A request whose token has not the role that it takes."""

    status = 403


class Access:
    """Decides what a request may do.

    Args:
        tokens: token -> its role. Without any, everybody may ask and nobody may manage.
    """

    def __init__(self, tokens: Mapping[str, str] | None = None) -> None:
        self._roles = {_digest(token): _ROLES[role] for token, role in (tokens or {}).items()}

    @property
    def open(self) -> bool:
        """Whether everybody may ask."""
        return not self._roles

    def check(self, authorization: str | None, role: str) -> None:
        """Check the header `Authorization` of a request.

        Raises:
            NoTokenError: there is no known token in it.
            ForbiddenError: its token has not this role, or nobody has.
        """
        if self.open:
            if role != ASK:
                raise ForbiddenError(
                    "this service takes no tasks from requests", hint="start it with --tokens to let some do so"
                )
            return
        scheme, _, token = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise NoTokenError("the request has no bearer token", hint="send the header Authorization: Bearer TOKEN")
        digest = _digest(token.strip())
        roles = [roles for known, roles in self._roles.items() if hmac.compare_digest(known, digest)]
        if not roles:
            raise NoTokenError("the bearer token is not known")
        if role not in roles[0]:
            raise ForbiddenError(f"the token may not {role}")


def read_tokens(path: Path) -> dict[str, str]:
    """The tokens of a file: a role, a space and a token on each line; lines that begin with # are notes.

    Raises:
        UsageError: the file cannot be read, or a line is not of this form. No token is in the message.
    """
    try:
        lines = read_file(path, limit=_LARGEST_FILE).decode("utf-8").splitlines()
    except (BundleError, OSError, UnicodeDecodeError) as error:
        raise UsageError(f"the tokens in {path} cannot be read: {error}") from error
    tokens: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        role, _, token = line.strip().partition(" ")
        token = token.strip()
        if role not in _ROLES or len(token) < _SHORTEST_TOKEN or not token.isascii() or " " in token:
            raise UsageError(
                f"line {number} of {path} is not a role and a token",
                hint=f"write {ASK} or {MANAGE}, a space, and a token of {_SHORTEST_TOKEN} characters or more, "
                "as openssl rand -hex 32 makes it",
            )
        tokens[token] = role
    if not tokens:
        raise UsageError(f"{path} has no token, expected at least one")
    return tokens


def _digest(token: str) -> bytes:
    """SHA-256 of a token, so that a comparison takes no longer for a token that is nearly right."""
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()
