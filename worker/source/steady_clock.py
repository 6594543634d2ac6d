"""PubNub's clock, asked seldom."""

import asyncio
import math
from collections.abc import Awaitable, Callable
from typing import Final

from worker.domain.position import TICKS_PER_SECOND, Timetoken, shift

ANCHOR_SECONDS: Final = 600.0
"""How long an answer of PubNub's is used."""
PACE: Final = 0.999
"""Our clock may run faster, by less than a thousandth."""


class SteadyClock:
    """PubNub's clock: one request in ten minutes, and our own clock in between.

    It is never ahead of PubNub's, so nothing is judged too early.
    It may be behind: by the way of the answer, by a thousandth of ten minutes,
    and for as long as a virtual machine was stopped.
    So it is no newest end of a list.
    """

    def __init__(
        self,
        ask: Callable[[], Awaitable[Timetoken]],
        clock: Callable[[], float],
    ) -> None:
        """``clock`` passes while the machine sleeps, too."""
        self._ask = ask
        self._clock = clock
        self._anchor: Timetoken = ""
        """PubNub's newest answer."""
        self._received_at = -math.inf
        self._turn = asyncio.Lock()

    async def now(self) -> Timetoken:
        """Return PubNub's time, or a little less.

        Raises:
            PubNubError: PubNub had to be asked, and failed.
        """
        async with self._turn:
            if self._age > ANCHOR_SECONDS:
                self._anchor = await self._ask()
                self._received_at = self._clock()
        seconds = PACE * self._age
        return shift(self._anchor, int(seconds * TICKS_PER_SECOND))

    @property
    def _age(self) -> float:
        return self._clock() - self._received_at
