"""PubNub's clock, asked seldom."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from worker.domain.position import TICKS_PER_SECOND, Timetoken, shift

ANCHOR_SECONDS: Final = 600.0
"""How long an answer of PubNub's is used."""
PACE: Final = 0.999
"""Our clock may run faster than PubNub's, by less than a thousandth."""


@dataclass(frozen=True, slots=True)
class _Anchor:
    """PubNub's time, and when its answer was here, in seconds of our clock."""

    time: Timetoken
    received_at: float


class SteadyClock:
    """PubNub's clock: one request in ten minutes, and our own clock in between.

    It is never ahead of PubNub's. PubNub read its clock before its answer was here,
    so the time since then is at least the time since the answer.
    It may be behind: by the way of the answer, by a thousandth of ten minutes,
    and for as long as a virtual machine was stopped meanwhile.

    To be behind is safe where it says what is old enough to be judged:
    less is judged. It is not safe as the newest end of a list:
    what came last would not be read.
    """

    def __init__(
        self,
        ask: Callable[[], Awaitable[Timetoken]],
        clock: Callable[[], float],
    ) -> None:
        """``ask`` asks PubNub. ``clock`` passes while the machine sleeps, too."""
        self._ask = ask
        self._clock = clock
        self._anchor: _Anchor | None = None
        self._turn = asyncio.Lock()

    async def now(self) -> Timetoken:
        """Return PubNub's time, or a little less.

        Raises:
            PubNubError: PubNub had to be asked, and failed.
        """
        anchor = self._anchor
        if anchor is None or self._age(anchor) > ANCHOR_SECONDS:
            anchor = await self._next_anchor(anchor)
        seconds = PACE * self._age(anchor)
        return shift(anchor.time, int(seconds * TICKS_PER_SECOND))

    async def _next_anchor(self, before: _Anchor | None) -> _Anchor:
        """Ask PubNub, unless another task has asked meanwhile."""
        async with self._turn:
            if self._anchor is None or self._anchor is before:
                time = await self._ask()
                self._anchor = _Anchor(time, self._clock())
            return self._anchor

    def _age(self, anchor: _Anchor) -> float:
        return self._clock() - anchor.received_at
