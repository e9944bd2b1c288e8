"""What serves every task as a model of its own: the services that `serving.py` compares `bitfit serve` with.

    python benchmarks/task_servers.py TASKS --port 0 --task t3     one task, by a process of its own
    python benchmarks/task_servers.py TASKS --port 8000            every task, by Ray Serve's multiplexing

TASKS has a folder for each task, as `write_task_models` makes them: the task's fine-tuned model as PyTorch exports it.
The weights of all are one file on the disk, so that a model that was not loaded before needs no reading from it: that
is more than a folder of real models would give.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import os
import signal
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from load_generator import lead_of

from bitfit_export.baselines.timing import open_baseline

if TYPE_CHECKING:
    from models import Workbench

__all__ = ["write_task_models"]

_WAY = "Olive's passes"
_MODEL, _WEIGHTS, _TOKENIZER = "model.onnx", "weights.bin", "tokenizer.json"
#: A logit that no model has by chance, by which the head's bias is found.
_MARK = 12345.0
#: What Ray Serve keeps of each replica when it is not told otherwise.
_MODELS_PER_REPLICA = 3


def write_task_models(workbench: Workbench, folder: Path, count: int) -> None:
    """Write so many tasks, whose answers are those that the callers expect: see `load_generator`."""
    import onnx
    from onnx.external_data_helper import convert_model_to_external_data

    from bitfit_export.baselines.exports import export_baselines

    delta = workbench.deltas[workbench.task]
    marked = {name: np.zeros_like(value) for name, value in delta.head.items()}
    bias = next(name for name in marked if name.endswith("bias") and marked[name].shape == (2,))
    marked[bias] = np.array([0.0, _MARK], np.float32)
    exported = export_baselines(
        workbench.base, dataclasses.replace(delta, head=marked), folder / "export", ways=[_WAY]
    ).paths[_WAY]
    model = onnx.load(exported)
    convert_model_to_external_data(model, location=_WEIGHTS, size_threshold=1 << 14)
    onnx.save(model, folder / _MODEL)
    heads = [each for each in model.graph.initializer if _MARK in onnx.numpy_helper.to_array(each, str(folder))]
    (head,) = heads
    workbench.base.tokenizer.backend_tokenizer.save(str(folder / _TOKENIZER))
    for number in range(count):
        task = folder / f"t{number}"
        task.mkdir()
        lead = np.array([0.0, lead_of(number, 1, count)], np.float32)
        head.CopyFrom(onnx.numpy_helper.from_array(lead, head.name))
        (task / _MODEL).write_bytes(model.SerializeToString())
        for shared in (_WEIGHTS, _TOKENIZER):
            os.link(folder / shared, task / shared)


class TaskModel:
    """One task's model, in memory."""

    def __init__(self, folder: Path) -> None:
        import tokenizers

        self._task = folder.name
        self._session = open_baseline(folder / _MODEL, 1)
        self._inputs = [each.name for each in self._session.get_inputs()]
        self._tokenizer = tokenizers.Tokenizer.from_file(str(folder / _TOKENIZER))
        self._tokenizer.no_padding()  # the file may say that all texts are made 128 tokens long

    def answer(self, text: str) -> dict[str, Any]:
        encoded = self._tokenizer.encode(text)
        found = {
            "input_ids": encoded.ids,
            "attention_mask": encoded.attention_mask,
            "token_type_ids": encoded.type_ids,
        }
        feeds = {name: np.array([found[name]], np.int64) for name in self._inputs}
        (logits,) = self._session.run(["logits"], feeds)[0]
        shares = np.exp(logits - logits.max())
        best = int(logits.argmax())
        return {"task": self._task, "label": f"LABEL_{best}", "score": float(shares[best] / shares.sum())}


def serve_one(folder: Path, port: int) -> None:
    """Answer for one task until the process is told to end."""
    import uvicorn
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import JSONResponse
    from starlette.routing import Route

    model = TaskModel(folder)

    async def predict(request: Request) -> JSONResponse:
        body = await request.json()
        return JSONResponse({"answers": [await asyncio.to_thread(model.answer, text) for text in body["texts"]]})

    app = Starlette(routes=[Route("/predict", predict, methods=["POST"])])
    # With its protocol named, small packets are sent at once, as the service that this is compared with does it.
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.bind(("127.0.0.1", port))
    listening.listen(1024)
    _say_ready(listening.getsockname()[1])
    uvicorn.Server(uvicorn.Config(app, log_level="error", timeout_keep_alive=600)).run(sockets=[listening])


def serve_all_on_ray(tasks: Path, port: int) -> None:
    """Answer for every task by one replica that multiplexes models, until the process is told to end."""
    from ray import serve as ray_serve
    from starlette.requests import Request
    from starlette.responses import JSONResponse

    from bitfit_export.cluster import connected

    serve: Any = ray_serve  # it has no types

    async def load(task: str) -> TaskModel:
        return await asyncio.to_thread(TaskModel, tasks / task)

    class Models:
        def __init__(self) -> None:
            self._load = serve.multiplexed(max_num_models_per_replica=_MODELS_PER_REPLICA)(load)

        async def __call__(self, request: Request) -> JSONResponse:
            body = await request.json()
            model = await self._load(serve.get_multiplexed_model_id())
            return JSONResponse({"answers": [await asyncio.to_thread(model.answer, text) for text in body["texts"]]})

    with connected(None):
        serve.start(http_options={"host": "127.0.0.1", "port": port})
        serve.run(serve.deployment(Models, max_ongoing_requests=512).bind(), route_prefix="/")
        _say_ready(port)
        signal.sigwait({signal.SIGTERM, signal.SIGINT})
        serve.shutdown()


def _say_ready(port: int) -> None:
    print(f"answering at http://127.0.0.1:{port};", file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("tasks", type=Path)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--task")
    options = parser.parse_args()
    if options.task:
        serve_one(options.tasks / options.task, options.port)
    else:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})  # threads inherit it
        serve_all_on_ray(options.tasks.absolute(), options.port)


if __name__ == "__main__":
    main()
