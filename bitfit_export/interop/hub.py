"""Task deltas on the Hugging Face Hub: `bitfit push`, and `--tasks hub:org/name`.

A repository is a delta's folder: tensors, config and card. Everything that the Hub is asked goes through `client`.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bitfit_export.base_model.loading import quiet_hub
from bitfit_export.delta import CARD_FILE, CONFIG_FILE, TENSOR_FILE, TaskDelta
from bitfit_export.errors import BitfitError, DeltaError, HubError, MissingExtraError, UsageError, first_line

__all__ = ["PREFIX", "check_push", "client", "pull_delta", "push_delta"]

#: Before the name of a repository, where a folder could stand too.
PREFIX = "hub:"
_FILES = (TENSOR_FILE, CONFIG_FILE, CARD_FILE)
_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
_LOG_IN = "hf auth login stores a token; one that may write is made at https://huggingface.co/settings/tokens"


def client() -> Any:
    """The Hub's own client, an `HfApi`."""
    try:
        from huggingface_hub import HfApi
        from huggingface_hub.utils.tqdm import disable_progress_bars
    except ImportError as error:
        raise MissingExtraError("huggingface_hub", "export") from error
    quiet_hub()
    disable_progress_bars()
    return HfApi()


def check_push(repository: str) -> None:
    """Find out before training whether a push can work: the name is one, the Hub answers, and knows who asks.

    Raises:
        UsageError: `repository` is not of the form `org/name`.
        HubError: the Hub cannot be reached, or there is no token that it takes.
    """
    _check_name(repository)
    with _one_line(repository):
        client().whoami()


def push_delta(folder: Path, repository: str, *, private: bool = False) -> str:
    """Upload a delta's folder, into a new repository or as a new version of one that is there; return its address.

    The card says how to compile the task from the Hub.

    Raises:
        UsageError: `repository` is not of the form `org/name`.
        DeltaError: the folder is not a complete delta; nothing is uploaded.
        HubError: the Hub refuses it, or cannot be reached.
    """
    _check_name(repository)
    TaskDelta.load(folder)
    card = (folder / CARD_FILE).read_text(encoding="utf-8") if (folder / CARD_FILE).is_file() else ""
    with tempfile.TemporaryDirectory(prefix="bitfit-push-") as name:
        staged = Path(name)
        for file in (TENSOR_FILE, CONFIG_FILE):
            (staged / file).write_bytes((folder / file).read_bytes())
        # The copy once more: the folder may have been replaced since.
        delta = TaskDelta.load(staged)
        (staged / CARD_FILE).write_text(_card_of_hub(card, delta.config.task, repository), encoding="utf-8")
        with _one_line(repository):
            hub = client()
            hub.create_repo(repository, private=private, exist_ok=True)
            hub.upload_folder(
                repo_id=repository,
                folder_path=str(staged),
                allow_patterns=list(_FILES),
                commit_message=f"Upload the task delta {delta.config.task}",
            )
    return f"https://huggingface.co/{repository}"


def pull_delta(address: str) -> Path:
    """Download a delta, and check all of it; return its folder, which is in the Hub's cache.

    Args:
        address: `org/name`, or `org/name@revision`.

    Raises:
        UsageError: `address` is not of that form.
        HubError: there is no such repository or revision, or the Hub cannot be reached and the cache does not have it.
        DeltaError: the repository holds no whole delta.
    """
    repository, _, revision = address.partition("@")
    _check_name(repository)
    with _one_line(repository):
        folder = Path(client().snapshot_download(repository, revision=revision or None, allow_patterns=list(_FILES)))
    if not (folder / CONFIG_FILE).is_file():
        raise DeltaError(
            f"{repository} on the Hub holds no delta: it has no {CONFIG_FILE}", hint="bitfit push uploads one"
        )
    TaskDelta.load(folder)
    return folder


def _check_name(repository: str) -> None:
    if not _REPOSITORY.fullmatch(repository) or not _is_valid(repository):
        raise UsageError(f"{repository!r} cannot be a repository on the Hub, expected the form org/name")


def _is_valid(repository: str) -> bool:
    """By the Hub's own rule: no `--` or `..`, and at most 96 characters."""
    try:
        from huggingface_hub.errors import HFValidationError
        from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]
    except ImportError as error:
        raise MissingExtraError("huggingface_hub", "export") from error
    try:
        validate_repo_id(repository)
    except HFValidationError:
        return False
    return True


def _card_of_hub(card: str, task: str, repository: str) -> str:
    """The card with a command that compiles the task from where the card is."""
    return re.sub(rf"--tasks {re.escape(task)}$", f"--tasks {task}={PREFIX}{repository}", card, flags=re.MULTILINE)


@contextmanager
def _one_line(repository: str) -> Iterator[None]:
    """Say what the Hub's client raises in one line, with what to do about it."""
    try:
        yield
    except BitfitError:
        raise
    except Exception as error:  # the client's errors, those of the HTTP library below it, and the operating system's
        raise _hub_error(repository, error) from error


def _hub_error(repository: str, error: Exception) -> HubError:
    from huggingface_hub import errors

    if isinstance(error, errors.LocalTokenNotFoundError):
        return HubError("the Hugging Face Hub wants a token, and there is none on this machine", hint=_LOG_IN)
    if isinstance(error, errors.GatedRepoError):
        return HubError(f"{repository} on the Hub asks for its terms to be accepted", hint="accept them on its page")
    if isinstance(error, errors.RevisionNotFoundError):
        return HubError(f"{repository} on the Hub has no such revision", hint="its page lists branches and commits")
    if isinstance(error, errors.RepositoryNotFoundError):
        hint = f"check the name; a private one needs a token: {_LOG_IN}"
        return HubError(f"there is no {repository} on the Hub, or it may not be seen", hint=hint)
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status in (401, 403):
        return HubError(f"the Hub refuses {repository} to the token of this machine ({status})", hint=_LOG_IN)
    if status is not None:
        return HubError(f"the Hub answered {status} about {repository}: {first_line(error)}")
    return HubError(
        f"the Hugging Face Hub cannot be reached for {repository}: {first_line(error)}",
        hint="check the network; a folder with the delta will do in place of hub:org/name",
    )
