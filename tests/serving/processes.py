"""`bitfit serve` as a process of its own."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import urllib.request
from pathlib import Path
from typing import Any

#: Seconds to wait for anything, on a machine that is busy.
PATIENCE = 60.0


class Serving:
    """A running `bitfit serve`."""

    def __init__(self, *words: str | Path) -> None:
        command = [sys.executable, "-m", "bitfit_export", "serve", *map(str, words), "--port", "0"]
        self.process = subprocess.Popen(
            command, stderr=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}
        )
        assert self.process.stderr is not None
        self.first = self.process.stderr.readline()
        found = re.search(r"at http://([\d.:]+);", self.first)
        assert found, self.first
        self.address = found[1]
        self.log: list[str] = []
        self._reading = threading.Thread(target=lambda: self.log.extend(self.process.stderr or ()), daemon=True)
        self._reading.start()

    def post(self, path: str, value: Any) -> Any:
        data = json.dumps(value).encode()
        request = urllib.request.Request(f"http://{self.address}{path}", data, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=PATIENCE) as reply:
            return json.load(reply)

    def ask(self, task: str) -> Any:
        """What a task says of a text."""
        (answer,) = self.post("/predict", {"task": task, "texts": ["A text."]})["answers"]
        return answer

    def end(self, number: int) -> int:
        self.process.send_signal(number)
        status = self.process.wait(PATIENCE)
        self._reading.join(PATIENCE)
        if self.process.stderr is not None:
            self.process.stderr.close()
        return status
