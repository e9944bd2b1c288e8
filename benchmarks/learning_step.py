"""What a training step costs as the program `train_step` and in PyTorch: CPU time, and peak memory of the process.

    python benchmarks/learning_step.py [--models minilm-l6,bert-base] [--threads 1,2] [--sequence 32] [--rounds 5]

PyTorch's step is bitfit-train's: forward, backward, clipped gradients, AdamW over bias terms and head; here without
dropout. "program" is `BiasTrainer`'s: the program in ONNX Runtime, clipped gradients and AdamW in NumPy. "C++" is
`bitfit_learn`'s, from two runs of which one has more steps; its memory is what it states before the first step, the
program `infer` included. All run in processes of their own, in turn. Writes results/benchmarks/learning_step.json.
"""

from __future__ import annotations

import json
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import memory
import numpy as np
from processes import run_json

if TYPE_CHECKING:
    from bitfit_export.bundle import Manifest
    from bitfit_export.runtime.learning.parameters import RowParameters

_STEP_SETTINGS = ("threads", "batch", "sequence", "steps")
_WARM_UP = 2
_CPP = Path(__file__).resolve().parents[1] / "build" / "cpp" / "default" / "bitfit_learn"
_STATED = re.compile(r"in at most (\d+) MB of memory")


def main(words: Sequence[str] | None = None) -> None:
    # Here and not above: a measured process must not import PyTorch for nothing.
    from common import Results, make_parser, say

    parser = make_parser(__doc__)
    parser.add_argument("--models", default="minilm-l6", help="(%(default)s)")
    parser.add_argument("--threads", default="1,2", help="(%(default)s)")
    for name, value in (("batch", 16), ("sequence", 32), ("steps", 6), ("rounds", 5)):
        parser.add_argument(f"--{name}", type=int, default=value, help="(%(default)s)")
    arguments = parser.parse_args(words)
    settings = {name: getattr(arguments, name) for name in ("batch", "sequence", "steps", "rounds")}
    results = Results(arguments.results, "learning_step", settings)
    for model in arguments.models.split(","):
        for threads in map(int, arguments.threads.split(",")):
            name = f"{model}, {threads} thread{'s' if threads > 1 else ''}"
            if name not in results.measured:
                results.measured[name] = measure(model, arguments.scratch, settings | {"threads": threads})
                say(f"{name}: {json.dumps(results.measured[name], indent=2)}")
                results.save()
    print(results.save())


def measure(model: str, scratch: Path, settings: Mapping[str, int]) -> dict[str, float]:
    """All methods in turn, each in fresh processes: medians, and the medians of the ratios to PyTorch."""
    from models import prepare

    bundle = prepare(model, scratch).bundle(layout="packed", trainable=True)
    sizes = [str(settings[name]) for name in _STEP_SETTINGS]
    places = {"program": str(bundle), "C++": str(bundle), "torch": model}
    found: dict[str, list[dict[str, float]]] = {method: [] for method in places}
    for _ in range(settings["rounds"]):
        for method, place in places.items():
            found[method].append(run_json("learning_step.py", method, place, str(scratch), *sizes))
    described = {
        f"{method}: {key}": statistics.median(each[key] for each in found[method])
        for method in places
        for key in found[method][0]
    }
    for method in ("program", "C++"):
        pairs = list(zip(found[method], found["torch"], strict=True))
        described |= {
            f"{key}, {method} / torch": statistics.median(one[key] / two[key] for one, two in pairs)
            for key in pairs[0][0]
        }
    return described


def measure_steps(method: str, place: str, scratch: Path, sizes: Mapping[str, int]) -> dict[str, float]:
    """The median step of one method, and the most memory that its process had.

    Args:
        place: a bundle's folder (`program`, `C++`), or a model's name (`torch`).
    """
    if method == "C++":
        return _cpp_steps(Path(place), sizes)
    step = _program_step(Path(place), sizes) if method == "program" else torch_step(place, scratch, sizes)
    processor, wall = [], []
    for _ in range(_WARM_UP + sizes["steps"]):
        started, began = time.process_time(), time.perf_counter()
        step()
        processor.append(time.process_time() - started)
        wall.append(time.perf_counter() - began)
    return {
        "CPU seconds": statistics.median(processor[_WARM_UP:]),
        "seconds": statistics.median(wall[_WARM_UP:]),
        "peak (MB)": memory.peak() / 1e6,
    }


def _program_step(folder: Path, sizes: Mapping[str, int]) -> Callable[[], None]:
    from bitfit_export.bundle import read_manifest
    from bitfit_export.bundle.interface import ITEM_WEIGHTS, TARGETS
    from bitfit_export.runtime.engines import choose_engine
    from bitfit_export.runtime.learning.adamw import AdamW, clipped
    from bitfit_export.runtime.learning.train_step import TrainStep

    manifest = read_manifest(folder)
    program = TrainStep(folder, manifest, choose_engine(manifest.target, "onnxruntime"), sizes["threads"], {})
    row = first_row(folder, manifest)
    optimiser = AdamW(row.values.size, epsilon=1e-6, weight_decay=0.0)
    batch = one_batch(manifest, sizes)
    text = {name: batch[name] for name in manifest.infer.input_names if name in batch}

    def step() -> None:
        _, gradient = program.run(row, text, batch[TARGETS], batch[ITEM_WEIGHTS], "single_label")
        optimiser.step(row.values, clipped(gradient, 1.0), 1e-3)

    return step


def first_row(folder: Path, manifest: Manifest) -> RowParameters:
    """The row that learning a task of two labels begins with."""
    from bitfit_export.bundle import read_row
    from bitfit_export.bundle.interface import BASE_ROW_FILE
    from bitfit_export.runtime.learning.parameters import RowParameters, with_new_head

    base = read_row(folder / BASE_ROW_FILE, layout=manifest.layout)
    first = with_new_head(base, manifest.layout, "single_label", 2, 0)
    return RowParameters(first, manifest.layout, manifest.layout_kind)


def one_batch(manifest: Manifest, sizes: Mapping[str, int]) -> dict[str, Any]:
    """Random texts without padding, and the other inputs of `train_step` that go with them."""
    from bitfit_export.bundle.interface import ITEM_WEIGHTS, LABEL_COUNTS, PROBLEM_TYPE_IDS, TARGETS

    items, shape = sizes["batch"], (sizes["batch"], sizes["sequence"])
    ids = np.random.default_rng(0).integers(0, manifest.vocab_size, shape)
    return {
        "input_ids": ids,
        "attention_mask": np.ones(shape, np.int64),
        "token_type_ids": np.zeros(shape, np.int64),
        TARGETS: np.eye(2, dtype=np.float32)[np.arange(items) % 2],
        ITEM_WEIGHTS: np.full(items, 1 / items, np.float32),
        LABEL_COUNTS: np.full(items, 2, np.int64),
        PROBLEM_TYPE_IDS: np.ones(items, np.int64),
    }


def _cpp_steps(bundle: Path, sizes: Mapping[str, int]) -> dict[str, float]:
    """What the steps beyond the first ones take, of a run of one epoch."""
    _learn_in_cpp(bundle, sizes, 1)  # reads the files, which PyTorch's turn may have driven out of memory
    few, many = (_learn_in_cpp(bundle, sizes, steps) for steps in (_WARM_UP, _WARM_UP + sizes["steps"]))
    step = {key: (many[key] - few[key]) / sizes["steps"] for key in ("CPU seconds", "seconds")}
    return step | {"peak (MB)": many["peak (MB)"]}


def _learn_in_cpp(bundle: Path, sizes: Mapping[str, int], steps: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        # One token per word, and two special ones.
        text = " ".join(["good"] * (sizes["sequence"] - 2))
        for file, examples in (("train", sizes["batch"] * steps), ("dev", 2)):
            lines = (json.dumps({"text": text, "label": "ab"[place % 2]}) + "\n" for place in range(examples))
            (folder / f"{file}.jsonl").write_text("".join(lines))
        command = [str(_CPP), str(bundle), "--task", "mood", "--data", name, "--output", str(folder / "mood.bias")]
        command += ["--epochs", "1", "--batch-size", str(sizes["batch"]), "--threads", str(sizes["threads"])]
        before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        done = subprocess.run(command, capture_output=True, text=True)
        after, ended = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    stated = _STATED.search(done.stderr)
    if done.returncode or stated is None:
        sys.exit(done.stderr)
    processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"CPU seconds": processor, "seconds": ended - began, "peak (MB)": float(stated[1])}


def torch_step(model_name: str, scratch: Path, sizes: Mapping[str, int]) -> Callable[[], None]:
    import torch
    from models import prepare

    from bitfit_export.training.methods import create_method
    from bitfit_export.training.settings import TrainingSettings
    from bitfit_export.training.trainable import TrainableModel

    torch.set_num_threads(sizes["threads"])
    torch.manual_seed(0)
    prepared = prepare(model_name, scratch)
    delta = next(iter(prepared.deltas.values()))
    model = TrainableModel(prepared.base.module, delta.config.pooling, 2, activation=delta.config.activation)
    create_method(TrainingSettings()).prepare(model)
    model.eval()  # without dropout
    learnt = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimiser = torch.optim.AdamW(learnt, lr=1e-3, eps=1e-6, weight_decay=0.0)
    ids = torch.randint(0, prepared.base.module.config.vocab_size, (sizes["batch"], sizes["sequence"]))
    labels = torch.arange(sizes["batch"]) % 2

    def step() -> None:
        model(input_ids=ids, attention_mask=torch.ones_like(ids), labels=labels)["loss"].backward()
        torch.nn.utils.clip_grad_norm_(learnt, 1.0)
        optimiser.step()
        optimiser.zero_grad()

    return step


if __name__ == "__main__":
    if sys.argv[1:2] in (["program"], ["C++"], ["torch"]):
        chosen, where, scratch, *numbers = sys.argv[1:]
        counts = dict(zip(_STEP_SETTINGS, map(int, numbers), strict=True))
        print(json.dumps(measure_steps(chosen, where, Path(scratch), counts)))
    else:
        main()
