"""Replaces a folder again and again, and is struck by a signal at another line of the writing code each time.

    python -m tests.files.struck_writer FOLDER SIGNAL exchange|renames EVERY

Prints a JSON list with an object for every EVERY-th line: what stood at the output afterwards, what the writer said of
it, what lay beside it, and all of that again once the next writer has looked.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from bitfit_export.files import check_output, locks, new_folder, outputs, writing
from bitfit_export.files.outputs import OutputKind

TRACED = {module.__file__ for module in (writing, locks, outputs, contextlib, shutil)}
KIND = OutputKind("a thing", "mark.json", lambda mark: dict.fromkeys(["mark.json", *mark["files"]]))


def write(folder: Path, text: str) -> None:
    (folder / "mark.json").write_text(json.dumps({"files": ["a/file"]}))
    (folder / "a").mkdir()
    (folder / "a/file").write_text(text)


def interrupt(number: int, frame: Any) -> NoReturn:
    raise KeyboardInterrupt


def strike_at(step: int, number: int) -> None:
    """Send this process the signal before the line of the traced files that is run as the step-th."""
    seen = 0

    def count(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal seen
        if event == "line":
            seen += 1
            if seen == step:
                os.kill(os.getpid(), number)
        return count

    sys.settrace(lambda frame, event, argument: count if frame.f_code.co_filename in TRACED else None)


def replace_and_be_struck(target: Path, step: int, number: int, note: Path) -> bool:
    """Returns whether the writer came to its end before the step."""
    child = os.fork()
    if not child:
        status = 1
        try:
            strike_at(step, number)
            with new_folder(target, replaces=KIND) as folder:
                write(folder, "new")
            sys.settrace(None)
            status = 0
        except KeyboardInterrupt as error:
            sys.settrace(None)
            note.write_text("; ".join(getattr(error, "__notes__", ())))
        finally:
            os._exit(status)
    return os.waitpid(child, 0)[1] == 0


def state(target: Path) -> dict[str, Any]:
    file = target / "a/file"
    return {"output": file.read_text() if file.exists() else None, "beside": sorted(os.listdir(target.parent))}


def main() -> None:
    os.fsync = lambda descriptor: (
        None
    )  # a signal cannot come between a write and the disk, and this is hundreds of them
    target, number = Path(sys.argv[1]) / "thing", signal.Signals[sys.argv[2]]
    note = target.parent.parent / "note"
    for caught in (signal.SIGINT, signal.SIGTERM):
        signal.signal(caught, interrupt)
    if sys.argv[3] == "renames":
        writing._exchange = lambda first, second: False
    found: list[dict[str, Any]] = []
    every, ended = int(sys.argv[4]), False
    while not ended:
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(parents=True)
        write(target, "old")
        note.unlink(missing_ok=True)
        ended = replace_and_be_struck(target, 1 + every * len(found), number, note)
        found.append({"note": note.read_text() if note.exists() else None, "after": state(target)})
        check_output(target, replaces=KIND)
        found[-1]["next"] = state(target)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
