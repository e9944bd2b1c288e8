"""Progress on stderr."""

from __future__ import annotations

import sys
from typing import Any

from transformers import TrainerCallback

from bitfit_export.cli.streams import say

__all__ = ["EpochReport"]


class EpochReport(TrainerCallback):
    """A progress bar over the steps, and a line of metrics after each epoch that says which is the best so far."""

    def __init__(self, metric: str) -> None:
        self._metric = metric
        self._best = float("-inf")
        self._bar: Any = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        from tqdm.auto import tqdm

        name = f"eval_{self._metric}"
        self._best = max((entry[name] for entry in state.log_history if name in entry), default=float("-inf"))
        if state.global_step:
            say(f"going on after step {state.global_step} of {state.max_steps}")
        # On a terminal the bar moves every tenth of a second, in a log file every half minute.
        interval = 0.1 if sys.stderr.isatty() else 30.0
        self._bar = tqdm(
            total=state.max_steps,
            initial=state.global_step,
            desc="training",
            unit="step",
            file=sys.stderr,
            mininterval=interval,
            dynamic_ncols=True,
        )

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._bar.update(state.global_step - self._bar.n)

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: dict[str, float], **kwargs: Any) -> None:
        if self._bar is None:
            return
        skip = ("_runtime", "_per_second")
        shown = {name: value for name, value in metrics.items() if name.startswith("eval_") and not name.endswith(skip)}
        scores = ", ".join(f"{name.removeprefix('eval_')} {value:.4f}" for name, value in shown.items())
        score = metrics[f"eval_{self._metric}"]
        best = " (best so far)" if score > self._best else ""
        self._best = max(self._best, score)
        self._bar.write(f"epoch {round(state.epoch)}: {scores}{best}", file=sys.stderr)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._bar.close()
        self._bar = None
