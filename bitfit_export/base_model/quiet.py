"""Keep the notes of torch's and transformers' exporters out of a user's terminal."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator

__all__ = ["quiet_exporters"]


@contextlib.contextmanager
def quiet_exporters() -> Iterator[None]:
    """What exporters say about versions and operators of other libraries says nothing about the user's model."""
    previous = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(previous)
