"""What tests of C++ learning share: easy examples, short settings, and what `learning_test learn` said."""

from __future__ import annotations

import json
import resource
import signal
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeAlias

from bitfit_export.bundle import BiasRow, decode_row, encode_row
from bitfit_export.runtime.learning import LabelledTexts, LearningSettings

__all__ = ["FAST", "LABELS", "MOODS", "TEXTS", "TOLERANCE", "Learn", "Learnt", "learn"]

GOOD = ("good fine lovely", "a lovely day", "fine and good", "good food", "what a fine film", "lovely people")
BAD = ("bad awful", "an awful day", "bad and poor", "poor food", "what a bad film", "awful people")
TEXTS = [(text,) for text in (*GOOD, *BAD)]
LABELS = ("bad", "good")
MOODS = LabelledTexts(TEXTS, [1] * len(GOOD) + [0] * len(BAD))
FAST = LearningSettings(learning_rate=5e-3, epochs=6, batch_size=4, schedule="constant", warmup=0)
#: Of a value: float32 in another order, over some twenty steps of AdamW, of which each may be a learning rate's size.
TOLERANCE = 2e-4

Learn: TypeAlias = "Callable[..., Learnt]"


@dataclass
class Learnt:
    """What `learning_test learn` said.

    Attributes:
        plan: what it said before the first step.
        end: status, row and answers of the session afterwards; empty where it was killed.
    """

    code: int
    plan: dict[str, Any]
    losses: list[float]
    steps: list[int]
    epochs: list[dict[str, Any]]
    end: dict[str, Any]

    @property
    def row(self) -> BiasRow:
        assert self.end["code"] == 0, self.end
        return decode_row(bytes(self.end["row"]))


def learn(
    program: Path,
    train: LabelledTexts = MOODS,
    held_out: LabelledTexts = MOODS,
    *,
    bundle: Path,
    settings: LearningSettings = FAST,
    labels: Sequence[str] = LABELS,
    start: BiasRow | None = None,
    room: int | None = None,
    **more: Any,
) -> Learnt:
    """What `learning_test` says that learns in a process of its own, as `BiasTrainer.learn` does.

    Args:
        room: the size that a file may have, in bytes.
        more: what `learning_test` takes besides.
    """
    known = {name: value for name, value in asdict(settings).items() if value is not None}
    given = {
        "settings": known | ({} if settings.clip else {"clip": 0}),
        "labels": list(labels),
        "train": list(zip(train.texts, train.labels, strict=True)),
        "held_out": list(zip(held_out.texts, held_out.labels, strict=True)),
        **({} if start is None else {"start": list(encode_row(start))}),
        **{name: str(value) if isinstance(value, Path) else value for name, value in more.items()},
    }

    def limit() -> None:
        if room is not None:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))

    done = subprocess.run(
        [program, "learn", bundle], input=json.dumps(given), capture_output=True, text=True, check=False,
        preexec_fn=limit, restore_signals=False,
    )  # fmt: skip
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return Learnt(
        code=done.returncode,
        plan=next((line for line in lines if "part_items" in line), {}),
        losses=[line["loss"] for line in lines if "step" in line],
        steps=[line["step"] for line in lines if "step" in line],
        epochs=[line for line in lines if "epoch" in line],
        end=next((line for line in lines if "code" in line), {}),
    )
