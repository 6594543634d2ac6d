"""Waiting as long as a busy machine may take, and moments for a test to act."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

import pytest
from prometheus_client import REGISTRY

from tests.bench.bench import Bench
from tests.waiting import wait_until

LONGEST_SECONDS: Final = 60.0
"""The longest wait for something that should come at once."""


async def wait_until_true(ask: Callable[[], Awaitable[object]], expected: object) -> None:
    """Wait until the answer is as expected."""
    deadline = time.monotonic() + LONGEST_SECONDS
    while (answer := await ask()) != expected:
        assert time.monotonic() < deadline, f"it stays {answer!r}, and never becomes {expected!r}"
        await asyncio.sleep(0.01)


async def wait_until_exact(bench: Bench) -> None:
    """Wait until the tallies equal PubNub's truth."""

    async def is_exact() -> bool:
        return await bench.counts() == bench.emulator.truth()

    await wait_until_true(is_exact, expected=True)


def redis_failures() -> float:
    """Return how often a call of Redis has failed and was repeated."""
    return REGISTRY.get_sample_value("tally_redis_failures_total") or 0.0


async def wait_until_redis_fails(times: int = 1) -> None:
    """Wait until so many more calls of Redis have failed."""
    before = redis_failures()
    await wait_until(lambda: redis_failures() >= before + times)


class Moments:
    """The moments before and after each request to Redis or PubNub.

    At one of them a test acts, once.
    """

    def __init__(self, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
        self._left = 0
        self._act: Callable[[], object] | None = None
        for whose, name in ((bench.retry, "call"), (bench.client, "subscribe")):
            monkeypatch.setattr(whose, name, self._around(getattr(whose, name)))

    def await_one(self, number: int, act: Callable[[], object]) -> None:
        """Act at the moment of this number from now on; the first is 0."""
        self._left, self._act = number, act

    @property
    def has_come(self) -> bool:
        """Whether that moment has come."""
        return self._act is None

    def _around(self, ask: Any) -> Any:
        async def asked(*args: Any, **options: Any) -> Any:
            self._pass()
            answer = await ask(*args, **options)
            self._pass()
            return answer

        return asked

    def _pass(self) -> None:
        if self._act and self._left == 0:
            act, self._act = self._act, None
            act()
        self._left -= 1
