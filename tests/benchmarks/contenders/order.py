"""What a contender is told, and what it reports."""

import asyncio
import json
import os
import sys
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

CURSOR: Final = "bench:cursor"
"""Where a peer keeps its cursor."""


@dataclass(frozen=True, slots=True)
class Order:
    """Read the answers of ``origin`` from ``first`` to ``last``, and count in ``redis``."""

    origin: str
    redis: str
    names: Sequence[str]
    first: str
    last: str
    events: int


@dataclass(frozen=True, slots=True)
class Report:
    """Seconds of the clock, and of the processor, in this process; and when they began."""

    seconds: float
    cpu: float
    began: float
    """The start, on the clock that all processes of a machine have."""


class Stopwatch:
    """Measures from the first poll until everything is counted."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._cpu = time.process_time()

    def report(self) -> Report:
        """Return what has passed since the start."""
        seconds = time.monotonic() - self._began
        cpu = time.process_time() - self._cpu
        return Report(seconds, cpu, self._began)


def take_part(contend: Callable[[Order], Report]) -> None:
    """Read an order, carry it out, print the report."""
    order = Order(**json.load(sys.stdin))
    report = contend(order)
    sys.stdout.write(json.dumps(asdict(report)))
    sys.stdout.flush()
    os._exit(0)  # the SDK's threads wait for an answer


def take_part_in_a_loop(contend: Callable[[Order], Coroutine[Any, Any, Report]]) -> None:
    """Do the same where the contender needs an event loop."""
    take_part(lambda order: asyncio.run(contend(order)))
