"""The training of the papers' experiments: their own protocol, or one that a file says for a model of one's own.

`protocol_file` reads one from a file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from bitfit_export.base_model.loading import BaseModel
from bitfit_export.experiments.trial import Trial, parse_method
from bitfit_export.training.learning_rates import with_learning_rate
from bitfit_export.training.settings import MAX_EPOCHS, TrainingSettings

__all__ = ["OF_TRIALS", "PAPER", "Experiment", "Protocol", "Round"]

#: Settings that are not the trainer's: what examples a trial has.
OF_TRIALS = ("train_examples", "validation_examples", "scored_train_examples")
#: The papers train with a constant rate, so every protocol does that does not say otherwise.
_SCHEDULE = {"schedule": "constant", "warmup": 0.0}
_GLUE = ("rte", "mrpc", "stsb", "cola", "sst2", "qnli", "qqp", "mnli")
_SEEDS = tuple(range(5))
_TABLE_3 = (
    "full",
    "bitfit",
    "b_q+b_m2",
    "b_m2",
    "b_q",
    "frozen",
    "rand-uniform",
    "rand-row-col",
    "adapters",
    "diff-pruning",
)


@dataclass(frozen=True)
class Round:
    """Tasks that are trained with the same seeds, all of one seed before the next."""

    tasks: tuple[str, ...]
    seeds: tuple[int, ...]


@dataclass(frozen=True)
class Experiment:
    """An experiment: what is trained for it.

    Attributes:
        methods: as `method_label` calls them.
        sizes: numbers of training examples; empty for all of them.
        shares: shares of the training examples instead.
        settings: of this experiment alone.
    """

    methods: tuple[str, ...]
    rounds: tuple[Round, ...]
    sizes: tuple[int, ...] = ()
    shares: tuple[float, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def tasks(self) -> tuple[str, ...]:
        """Every task, in the order of the rounds."""
        return tuple(dict.fromkeys(task for each in self.rounds for task in each.tasks))

    def seeds_of(self, task: str) -> tuple[int, ...]:
        return tuple(dict.fromkeys(seed for each in self.rounds if task in each.tasks for seed in each.seeds))

    def narrowed(
        self,
        *,
        tasks: Sequence[str] | None = None,
        seeds: Sequence[int] | None = None,
        methods: Sequence[str] | None = None,
        sizes: Sequence[int] | None = None,
    ) -> Experiment:
        """The same with other tasks, seeds, methods or sizes; tasks that the rounds have keep their order and seeds."""
        rounds = self.rounds
        if tasks is not None:
            kept = (replace(each, tasks=tuple(task for task in each.tasks if task in tasks)) for each in rounds)
            known = tuple(each for each in kept if each.tasks)
            new = tuple(task for task in tasks if task not in self.tasks)
            rounds = (*known, Round(new, rounds[0].seeds)) if new else known
        if seeds is not None:
            rounds = (Round(tuple(dict.fromkeys(task for each in rounds for task in each.tasks)), tuple(seeds)),)
        return replace(
            self,
            rounds=rounds,
            methods=self.methods if methods is None else tuple(methods),
            sizes=self.sizes if sizes is None else tuple(sizes),
        )


@dataclass(frozen=True)
class Protocol:
    """See the module."""

    settings: Mapping[str, Any]
    tasks: Mapping[str, Mapping[str, Any]]
    methods: Mapping[str, Mapping[str, Any]]
    experiments: Mapping[str, Experiment]

    def trials(
        self, experiment: Experiment, base: BaseModel, overrides: Mapping[str, Any] | None = None
    ) -> list[Trial]:
        """Everything that an experiment trains, in the order in which it is trained.

        Args:
            base: decides about learning rates that nothing says.
            overrides: settings that win over all others.
        """
        trials = (
            Trial(task, with_learning_rate(settings, task, base), **own)
            for each in experiment.rounds
            for seed in each.seeds
            for size in experiment.sizes or experiment.shares or (None,)
            for task in each.tasks
            for method in experiment.methods
            for settings, own in self._of_rates(experiment, overrides or {}, task, method, seed, size)
        )
        return list(dict.fromkeys(trials))

    def _of_rates(
        self,
        experiment: Experiment,
        overrides: Mapping[str, Any],
        task: str,
        method: str,
        seed: int,
        size: float | None,
    ) -> list[tuple[TrainingSettings, dict[str, Any]]]:
        """The settings, and what else a trial has, for each learning rate that is searched."""
        of_task, of_method = self.tasks.get(task, {}), self.methods.get(method, {})
        parts = (_SCHEDULE, self.settings, of_task, of_method, experiment.settings, overrides)
        values: dict[str, Any] = {name: value for part in parts for name, value in part.items()}
        rates = values.pop("learning_rate", None)
        own = {name: values.pop(name) for name in OF_TRIALS if name in values}
        if experiment.sizes:
            own["train_examples"] = size
        elif size is not None and size < 1:  # a share of all examples is a training like any other
            own["train_share"] = size
        name, terms = parse_method(method)
        return [
            (TrainingSettings(**values, method=name, bias_terms=terms, learning_rate=rate, seed=seed), own)
            for rate in (rates if isinstance(rates, list | tuple) else (rates,))
        ]


def _paper() -> Protocol:
    """The first paper's protocol, and of the second what its summary says: full data sets, five seeds."""
    glue = (Round(_GLUE, _SEEDS),)
    return Protocol(
        settings={"epochs": MAX_EPOCHS, "scored_train_examples": 2000},
        tasks={"squad": {"max_length": 384, "stride": 128, "epochs": 3, "scored_train_examples": 0}},
        methods={},
        experiments={
            "table2": Experiment(("full", "bitfit"), glue),
            "table3": Experiment(_TABLE_3, glue),
            "pos": Experiment(("full", "bitfit"), (Round(("ewt",), _SEEDS),)),
            "figure1": Experiment(("bitfit",), (Round(("rte",), (0,)),)),
            "figure2": Experiment(
                ("full", "bitfit"), (Round(("squad",), (0,)),), sizes=(1000, 2000, 4000, 8000, 16000, 32000, 64000)
            ),
            "data-size": Experiment(
                ("full", "bitfit", "adapters"),
                (Round(("mrpc", "cola", "stsb"), _SEEDS),),
                shares=(0.1, 0.3, 0.5, 0.7, 1.0),
            ),
            "gap": Experiment(("full", "bitfit"), glue),
        },
    )


PAPER = _paper()
"""The protocol where no file says another one."""
