"""Callers of a service, in a process of their own: each asks one text at a time, and checks every answer.

A task's answer is known beforehand: its row reads nothing of the text, and its score is the sigmoid of its lead, which
no other task or version has. So an answer of another task's row, or of half a row, shows. Reads a plan as JSON from
stdin and writes what was seen to stdout. It imports little, for it shares the machine's cores with the service.
"""

from __future__ import annotations

import asyncio
import json
import math
import random
import sys
import time
from bisect import bisect
from itertools import accumulate
from typing import Any

__all__ = ["lead_of"]

_TOLERANCE = 2e-6
#: Says the model, to a service of Ray's that keeps some of many.
_TASK_OF_RAY = "serve_multiplexed_model_id"
_SEPARATOR = b"\r\n\r\n"


def lead_of(number: int, version: int, count: int) -> float:
    """By how much the second label's logit is ahead in a version of a task's row: from -4 to 4, all different."""
    place = (number + 0.5 * ((version - 1) % 2)) / count
    return 8.0 * place - 4.0


def answers_of(number: int, versions: int, count: int) -> list[float]:
    """The scores of the second label that a task may have, in as many versions as there are."""
    return [1 / (1 + math.exp(-lead_of(number, version, count))) for version in range(1, versions + 1)]


class Callers:
    """Some callers at once, each with connections of its own that are kept: one to each process that is asked.

    Attributes:
        seconds: of each request that was answered.
        wrong: answers that no version of the task's row gives.
        refused: replies by status, other than 200.
    """

    def __init__(self, plan: dict[str, Any]) -> None:
        self._plan = plan
        self._texts: list[str] = plan["texts"]
        self._random = random.Random(plan["seed"])
        count = plan["tasks"]
        # Zipf's law: the k-th task is asked in proportion to 1 / k ** exponent.
        self._shares = list(accumulate(1 / rank ** plan["exponent"] for rank in range(1, count + 1)))
        self.seconds: list[float] = []
        self.wrong = 0
        self.refused: dict[int, int] = {}

    async def run(self) -> None:
        end = time.monotonic() + self._plan["seconds"]
        await asyncio.gather(*(self._call(end) for _ in range(self._plan["callers"])))

    async def _call(self, end: float) -> None:
        addresses: list[str] = self._plan["addresses"]
        connections: dict[str, tuple[asyncio.StreamReader, asyncio.StreamWriter]] = {}
        while (start := time.monotonic()) < end:
            number = bisect(self._shares, self._random.random() * self._shares[-1])
            address = addresses[number % len(addresses)]
            if address not in connections:
                host, port = address.rsplit(":", 1)
                connections[address] = await asyncio.open_connection(host, int(port))
            reader, writer = connections[address]
            writer.write(self._request(number))
            status, body = await _reply(reader)
            if status == 200:
                self.seconds.append(time.monotonic() - start)
                self._check(number, body)
            else:
                self.refused[status] = self.refused.get(status, 0) + 1
        for _, writer in connections.values():
            writer.close()

    def _request(self, number: int) -> bytes:
        body = json.dumps({"task": f"t{number}", "texts": [self._random.choice(self._texts)]}).encode()
        head = f"POST /predict HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
        head += f"\r\n{_TASK_OF_RAY}: t{number}"
        return head.encode() + _SEPARATOR + body

    def _check(self, number: int, body: bytes) -> None:
        (answer,) = json.loads(body)["answers"]
        score = answer["score"] if answer["label"] == "LABEL_1" else 1 - answer["score"]
        known = answers_of(number, self._plan["versions"], self._plan["tasks"])
        if answer["task"] != f"t{number}" or min(abs(score - each) for each in known) > _TOLERANCE:
            self.wrong += 1


async def _reply(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    head = await reader.readuntil(_SEPARATOR)
    status = int(head.split(b" ", 2)[1])
    lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    return status, await reader.readexactly(int(lengths[0].split(b":")[1]))


def main() -> None:
    callers = Callers(json.load(sys.stdin))
    asyncio.run(callers.run())
    json.dump({"seconds": callers.seconds, "wrong": callers.wrong, "refused": callers.refused}, sys.stdout)


if __name__ == "__main__":
    main()
