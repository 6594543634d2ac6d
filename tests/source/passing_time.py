"""Time that passes at a test's command, on a machine of any speed."""

import asyncio
from collections.abc import Callable

import pytest

Passes = Callable[[float], None]
"""Lets seconds pass at once for the running loop."""


def passing_time(monkeypatch: pytest.MonkeyPatch) -> Passes:
    """Return a function that advances the clock of the running loop."""
    loop = asyncio.get_running_loop()
    elapsed = loop.time
    passed = 0.0

    def passes(seconds: float) -> None:
        nonlocal passed
        passed += seconds

    monkeypatch.setattr(loop, "time", lambda: elapsed() + passed)
    return passes
