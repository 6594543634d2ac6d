"""A PubNub that only answers polls: `answering.py`, as a child that takes orders."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Self

from tests.benchmarks.answering import STAMP
from tests.benchmarks.load import announced
from worker.domain.action import Added, Observed


def published(events: Sequence[Observed]) -> Iterator[bytes]:
    """Yield additions as lines for ``publish``."""
    for event in events:
        message = announced(Added(event.identity, STAMP.decode(), STAMP.decode()))
        line = f"{event.identity.channel}\t{json.dumps(message, ensure_ascii=False)}"
        yield line.encode()


class Loopback:
    """One such child."""

    def __init__(self, kind: str, lines: Iterable[bytes]) -> None:
        """Start it to ``replay`` answers, or to ``publish`` events: channel, tab, message."""
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.benchmarks.answering", kind],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=os.getcwd(),  # noqa: PTH109 - for a child
        )
        assert self._process.stdin
        for line in lines:
            self._process.stdin.write(line + b"\n")
        self._order("")
        self.origin = f"127.0.0.1:{self._answer()}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    async def wait_for(self, polls: int) -> None:
        """Return when so many polls wait."""
        self._order(f"wait {polls}")
        await asyncio.to_thread(self._answer)

    async def publish(self, rate: float, events: int) -> None:
        """Publish the first so many events, so many a second; return when all are sent."""
        self._order(f"publish {rate} {events}")
        await asyncio.to_thread(self._answer)

    def _order(self, line: str) -> None:
        assert self._process.stdin
        self._process.stdin.write(line.encode() + b"\n")
        self._process.stdin.flush()

    def _answer(self) -> str:
        assert self._process.stdout
        return self._process.stdout.readline().decode().strip()
