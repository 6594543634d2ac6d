"""The endless long poll of one subscription."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Final

import structlog

from worker.domain.position import HANDSHAKE, Cursor
from worker.errors import PubNubError
from worker.source.backoff import Backoff
from worker.source.client import Answer, Client
from worker.source.failures import with_grant
from worker.source.names import Names
from worker.source.refusals import Readmitted, Refusals, Refused, find_refused
from worker.telemetry.throttled_warning import ThrottledWarning

LONGEST_ANSWER_SECONDS: Final = 330.0
"""No poll takes longer, except while the machine is suspended."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Received:
    """An answer, and when it came, in seconds of the poller's clock."""

    answer: Answer
    at: float


Item = Received | Refused | Readmitted


def unreachable(clock: Callable[[], float]) -> ThrottledWarning:
    """Return a warning that PubNub does not answer."""
    return ThrottledWarning(log, "pubnub_unreachable", "pubnub_answers_again", clock)


class Poller:
    """Polls one subscription for ever, with PubNub's own cursors.

    After a failure it waits and repeats the poll with the same cursor.
    While names are refused, the others are polled without them. Once a
    minute the refused names are tried beside that poll. The try does not
    cut the poll, because an idle one is answered only after minutes.
    """

    def __init__(
        self,
        client: Client,
        names: Names,
        backoff: Backoff,
        clock: Callable[[], float],
        warning: ThrottledWarning | None = None,
    ) -> None:
        """``warning`` can be shared by several pollers."""
        self._client = client
        self._names = names
        self._backoff = backoff
        self._clock = clock
        self._warning = warning or unreachable(clock)
        self._refusals = Refusals(names, clock)
        # The poll of the accepted names, while others are refused.
        self._background: asyncio.Task[Received] | None = None
        self.contact = client.contact
        self.problem = ""
        """Why the newest poll failed; empty if it did not."""
        self.answered_at: float | None = None
        """When PubNub answered last, in seconds of the clock."""
        self.due_at = clock() + LONGEST_ANSWER_SECONDS
        """When PubNub has answered or is asked again, at the latest."""

    @property
    def state(self) -> str:
        """One of ``starting``, ``following``, ``unreachable`` and ``refused``."""
        if self._backoff.failures:
            return "unreachable"
        if self._refusals:
            return "refused"
        return "starting" if self.answered_at is None else "following"

    @property
    def is_refused(self) -> bool:
        """Whether PubNub refuses all names."""
        return not self._refusals.accepted

    async def items(self, cursor: Cursor) -> AsyncIterator[Item]:
        """Yield what happens after the cursor, which may be the handshake.

        A name that was refused before is polled, and reported again.
        """
        self._refusals.forget()
        try:
            while True:
                for item in await self._next_items(cursor):
                    yield item
                    if isinstance(item, Received):
                        cursor = item.answer.cursor
        finally:
            self._warning.drop(self)
            await self._stop_background()

    async def _next_items(self, cursor: Cursor) -> tuple[Item, ...]:
        names = self._refusals.to_poll
        try:
            reply = await self._poll(names, cursor)
        except PubNubError as error:
            refused = await self._refuse(error, names)
            if refused:
                return (refused,)
            await self._wait_after(error)
            return ()
        if not isinstance(reply, Received):
            return (reply,) if reply else ()
        self.answered_at = reply.at
        self.problem = ""
        self._backoff.succeeded()
        self._warning.recovered(self)
        if self._refusals.is_lifted:
            return self._refusals.readmit(), reply
        return (reply,)

    async def _poll(self, names: Names, cursor: Cursor) -> Received | Refused | None:
        """Poll these names, or try the refused ones if it is time."""
        if names == self._names:
            return await self._ask(names, cursor)
        if names and self._background is None:
            self._background = asyncio.create_task(self._ask(names, cursor))
        seconds = max(0.0, self._refusals.retry_at - self._clock())
        poll = self._background
        if poll is None:
            self.due_at = self._refusals.retry_at
            await asyncio.sleep(seconds)
            return await self._try_refused()
        done, _ = await asyncio.wait([poll], timeout=seconds)
        if not done:
            return await self._try_refused()
        self._background = None
        return poll.result()

    async def _try_refused(self) -> Refused | None:
        """Try the refused names. Returns None if PubNub accepts them."""
        names = self._refusals.refused
        try:
            await self._ask(names, HANDSHAKE)
        except PubNubError as error:
            refused = await self._refuse(error, names)
            if refused:
                return refused
            self._warn(error)
            self._refusals.retry_later()
            return Refused(names, is_new=False)  # nothing says that they are accepted
        self._refusals.lift()
        await self._stop_background()
        return None

    async def _refuse(self, error: PubNubError, polled: Names) -> Refused | None:
        names = await find_refused(error, polled, self._handshake)
        if not names:
            return None
        self.problem = with_grant(error)
        if names != frozenset(self._refusals.refused.all):
            await self._stop_background()
        return self._refusals.add(error, names, polled)

    async def _stop_background(self) -> None:
        """Cancel the poll. An answer is not lost: the cursor stays."""
        if self._background:
            self._background.cancel()
            await asyncio.gather(self._background, return_exceptions=True)
            self._background = None

    async def _wait_after(self, error: PubNubError) -> None:
        self._warn(error)
        seconds = self._backoff.failed(error)
        self.due_at = self._clock() + seconds
        await asyncio.sleep(seconds)

    def _warn(self, error: PubNubError) -> None:
        self.problem = str(error)
        self._warning.failing(self, reason=self.problem, names=len(self._names.all))

    async def _handshake(self, names: Names) -> None:
        await self._ask(names, HANDSHAKE)

    async def _ask(self, names: Names, cursor: Cursor) -> Received:
        asked_at = self._clock()
        self.due_at = asked_at + LONGEST_ANSWER_SECONDS
        channels = (*names.channels, *names.wildcards)
        answer = await self._client.subscribe(channels, names.groups, cursor)
        received_at = self._clock()
        seconds = received_at - asked_at
        if seconds > LONGEST_ANSWER_SECONDS:
            # The machine was suspended, so the age of the answer is unknown.
            raise PubNubError(f"PubNub's answer took {seconds:.0f} s. It is asked for again.")
        return Received(answer, received_at)
