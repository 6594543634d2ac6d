"""A PubNub that does nothing but answer polls, as those who order one see it: `answering.py`, a process of its own."""

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
    """Yield additions as they are ordered for publishing."""
    for event in events:
        told = announced(Added(event.identity, STAMP.decode(), STAMP.decode()))
        yield (
            event.identity.channel.encode() + b"\t" + json.dumps(told, ensure_ascii=False).encode()
        )


class Loopback:
    """Such a process, as the one who ordered it sees it."""

    def __init__(self, kind: str, lines: Iterable[bytes]) -> None:
        """Start it: ``replay`` with answers, or ``publish`` with events, each a channel, a tab, a message."""
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
        self.origin = f"127.0.0.1:{self._told()}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    async def wait_for(self, polls: int) -> None:
        """Return when so many polls wait for what happens next."""
        self._order(f"wait {polls}")
        await asyncio.to_thread(self._told)

    async def publish(self, rate: float, events: int) -> None:
        """Publish the first so many events, so many a second; return when all are told."""
        self._order(f"publish {rate} {events}")
        await asyncio.to_thread(self._told)

    def _order(self, line: str) -> None:
        assert self._process.stdin
        self._process.stdin.write(line.encode() + b"\n")
        self._process.stdin.flush()

    def _told(self) -> str:
        assert self._process.stdout
        return self._process.stdout.readline().decode().strip()
