"""The process that `serving_mix.py` measures: open what answers, answer all requests once, and say how much memory.

    python benchmarks/serve_once.py PLAN.json

It prints one line of JSON: the largest resident memory in bytes.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import memory
from servers import Server, open_server, prepare_batches
from traffic import Request


def main() -> None:
    plan = json.loads(Path(sys.argv[1]).read_text())
    batches = [[Request(*each) for each in batch] for batch in plan["batches"]]
    server = Server(**plan["server"])
    serve = open_server(server, plan["threads"])
    for tasks, ids in prepare_batches(batches, plan["inputs"], plan["vocabulary"]):
        serve(tasks, ids)
    if server.kind != "torch" and "torch" in sys.modules:
        sys.exit("torch is loaded, which a process that runs models does not need")
    print(json.dumps({"peak": memory.peak()}))


if __name__ == "__main__":
    main()
