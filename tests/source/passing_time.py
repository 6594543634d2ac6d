"""Time that passes when a test says so: nobody waits for it, and nothing depends on how fast this machine is."""

import asyncio
from collections.abc import Callable

import pytest

Passes = Callable[[float], None]
"""Lets so many seconds pass at once for the running loop; what is due by then happens at its next turn."""


def passing_time(monkeypatch: pytest.MonkeyPatch) -> Passes:
    """Return how to put the clock of the running loop forward; meanwhile it goes as clocks go."""
    loop, passed = asyncio.get_running_loop(), 0.0
    elapsed = loop.time

    def passes(seconds: float) -> None:
        nonlocal passed
        passed += seconds

    monkeypatch.setattr(loop, "time", lambda: elapsed() + passed)
    return passes
