"""Does PubNub answer the polls of one subscription?

An idle poll is answered only after minutes, so it proves nothing before:
a connection that swallows everything looks the same.
A handshake is answered at once.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Final

import structlog

from worker.errors import PubNubError
from worker.source.backoff import Backoff
from worker.source.names import Names
from worker.telemetry.throttled_warning import ThrottledWarning

PROBE_SECONDS: Final = 2.0
"""How long a poll waits before the first handshake.

One that fails does so sooner, as a rule.
"""
NEXT_SECONDS: Final = 30.0
"""Between two handshakes."""
ANSWER_SECONDS: Final = 10.0
"""A handshake that takes longer proves nothing."""
LONGEST_WAIT_SECONDS: Final = 570.0
"""For an answer to a poll.

An idle poll is answered after 280 s.
If its connection breaks just before, the next one takes 280 s again.
"""

Handshake = Callable[[], Awaitable[object]]

log = structlog.get_logger(__name__)


def unreachable(clock: Callable[[], float]) -> ThrottledWarning:
    """Return a warning that PubNub does not answer."""
    return ThrottledWarning(log, "pubnub_unreachable", "pubnub_answers_again", clock)


class Reachability:
    """Whether the polls fail, since when, and why."""

    def __init__(
        self,
        backoff: Backoff,
        clock: Callable[[], float],
        warning: ThrottledWarning | None = None,
    ) -> None:
        """``warning`` can be shared by several subscriptions."""
        self._backoff = backoff
        self._clock = clock
        self._warning = warning or unreachable(clock)
        self.problem = ""
        """Why the newest poll failed; empty if it did not."""
        self.is_starting = True
        """Whether PubNub has not answered yet, be it a handshake."""
        self.answered_at: float | None = None
        """When PubNub answered a poll last, in seconds of the clock."""
        self.waiting_since = clock()
        """The same; before the first answer it is when the subscription began."""
        self.failing_since: float | None = None
        """When the first of the polls failed that fail now."""

    def answered(self, at: float) -> None:
        """Note that PubNub answered a poll."""
        self.answered_at = self.waiting_since = at
        self.recovered()
        self._backoff.succeeded()

    def refused(self, problem: str) -> None:
        """Note that PubNub refused a poll: that is an answer, too."""
        self.recovered()
        self._backoff.succeeded()
        self.problem = problem

    def recovered(self) -> None:
        """Note that PubNub answers.

        After a handshake, the next poll can fail all the same.
        So only a poll resets the waits.
        """
        self.is_starting = False
        self.failing_since = None
        self.problem = ""
        self._warning.recovered(self)

    def failed(self, error: PubNubError, names: Names) -> float:
        """Note that a poll failed. Return the seconds until the next one."""
        self.warn(error, names)
        if self.failing_since is None:
            self.failing_since = self._clock()
        return self._backoff.failed(error)

    def warn(self, error: PubNubError, names: Names) -> None:
        """Say that a request failed."""
        self.problem = str(error)
        self._warning.failing(self, reason=self.problem, names=len(names.all))

    def end(self) -> None:
        """Note that nobody polls any more."""
        self._warning.drop(self)

    @asynccontextmanager
    async def probed_by(self, handshake: Handshake) -> AsyncIterator[None]:
        """While polls fail, send handshakes beside the poll in the block.

        The first one that is answered ends the outage.
        """
        if self.failing_since is None:
            yield
            return
        probe = asyncio.create_task(self._probe(handshake))
        try:
            yield
        finally:
            probe.cancel()
            await asyncio.wait([probe])

    async def _probe(self, handshake: Handshake) -> None:
        seconds = PROBE_SECONDS
        is_answered = False
        while not is_answered:
            await asyncio.sleep(seconds)
            seconds = NEXT_SECONDS
            is_answered = await _is_answered(handshake)
        self.recovered()


async def _is_answered(handshake: Handshake) -> bool:
    with suppress(PubNubError, TimeoutError):
        async with asyncio.timeout(ANSWER_SECONDS):
            await handshake()
            return True
    return False
