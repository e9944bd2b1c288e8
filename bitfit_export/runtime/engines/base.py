"""The interface of an engine: it opens a program of a bundle, and runs it on arrays."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple, TypeAlias

from numpy.typing import NDArray

__all__ = [
    "NO_OPTIONS",
    "Arrays",
    "Bound",
    "Engine",
    "EngineOption",
    "GraphTensor",
    "OptionValues",
    "Program",
    "ProgramFiles",
]

#: Arrays by the name of their graph input: C-contiguous, of the input's dtype.
Arrays: TypeAlias = Mapping[str, NDArray[Any]]
#: What an engine makes of arrays that stay for many runs. Nothing but the engine looks into it.
Bound: TypeAlias = Mapping[str, Any]
#: Values of an engine's options, by their names.
OptionValues: TypeAlias = Mapping[str, str]
NO_OPTIONS: OptionValues = MappingProxyType({})


class EngineOption(NamedTuple):
    """An option of an engine: whether it takes a value, and in words what it takes."""

    accepts: Callable[[str], bool]
    expected: str


class GraphTensor(NamedTuple):
    """An input of a graph: numpy's name of its dtype, and a number or None (any) for each dimension."""

    dtype: str
    shape: tuple[int | None, ...]


@dataclass(frozen=True)
class ProgramFiles:
    """A program as it was read and checked.

    Attributes:
        path: of the model's file, for messages.
        model: its bytes.
        folder: where its weights lie.
        at_load: how much is left to optimise: `none`, `basic` (constants alone) or `all`.
        plans_memory: whether an engine may lay out the memory of a run in advance, for each shape that it meets. That
            is faster for small graphs, and keeps more memory where many tensors live long.
    """

    path: Path
    model: bytes
    folder: Path
    at_load: str
    plans_memory: bool = True


class Program(ABC):
    """A program that an engine has opened. Any number of threads may run it.

    Attributes:
        inputs: what a run must be fed, by name.
        defaults: what a run may be fed, by name: inputs that have a default.
        outputs: the names of the outputs.
        metadata: the model's own.
        exact: whether it computes in the model's own precision, and not in a lower one that an option asked for.
    """

    exact: bool = True
    inputs: Mapping[str, GraphTensor]
    defaults: Mapping[str, GraphTensor]
    outputs: tuple[str, ...]
    metadata: Mapping[str, str]

    @abstractmethod
    def bind(self, arrays: Arrays) -> Bound:
        """Hold arrays for many runs. None is copied, and each is kept alive; their values may change between runs."""

    @abstractmethod
    def run(self, arrays: Arrays, bound: Bound, outputs: Sequence[str]) -> list[NDArray[Any]]:
        """Run the program once.

        Args:
            arrays: the inputs that are new in this run.
            bound: the others, as `bind` returned them.
            outputs: the names of the wanted outputs.

        Returns:
            An array for each wanted output, the caller's own.

        Raises:
            InputError: an input that only the program itself can refuse, such as a token type that it lacks.
            BundleError: any other failure of the engine.
        """

    def abandon(self) -> None:  # noqa: B027 - most engines have nothing to do
        """Give the program up without ending it: this process has inherited it by a fork, without its threads."""


class Engine(ABC):
    """Opens programs.

    Attributes:
        name: as `--engine` takes it.
        targets: the targets whose bundles it runs.
        runs: the kind of model that it runs, in words, for a message that says why it does not run another.
        feeds_defaults: whether it can feed an input that has a default (`--overridable`).
        options: its options, by their names.
    """

    name: ClassVar[str]
    targets: ClassVar[frozenset[str]]
    runs: ClassVar[str]
    feeds_defaults: ClassVar[bool] = True
    options: ClassVar[Mapping[str, EngineOption]] = MappingProxyType({})

    @abstractmethod
    def open(self, files: ProgramFiles, *, threads: int | None = None, options: OptionValues = NO_OPTIONS) -> Program:
        """Open a program.

        Args:
            threads: for one run; by default the engine's choice.
            options: values that `self.options` accepts.

        Raises:
            BundleError: the engine cannot load the program.
            UsageError: options that do not go with this machine, or with each other.
            MissingExtraError: the engine's package is not installed.
        """
