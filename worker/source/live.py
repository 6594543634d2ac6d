"""The endless long poll of one subscription."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

from worker.domain.position import HANDSHAKE, Cursor
from worker.errors import PubNubError
from worker.source.client import Answer, Client
from worker.source.failures import with_grant
from worker.source.names import Names
from worker.source.reachability import Reachability
from worker.source.refusals import Readmitted, Refusals, Refused, find_refused

LONGEST_ANSWER_SECONDS: Final = 330.0
"""No poll takes longer, except while the machine is suspended."""


@dataclass(frozen=True, slots=True)
class Received:
    """An answer, and when it came, in seconds of the poller's clock."""

    answer: Answer
    at: float


Item = Received | Refused | Readmitted


class Poller:
    """Polls one subscription for ever, with PubNub's own cursors.

    After a failure it waits and repeats the poll with the same cursor.
    A handshake beside that poll shows whether PubNub answers again.
    While names are refused, the others are polled without them. Once a
    minute the refused names are tried beside that poll. The try does not
    cut the poll, because an idle one is answered only after minutes.
    """

    def __init__(
        self,
        client: Client,
        names: Names,
        reachability: Reachability,
        clock: Callable[[], float],
    ) -> None:
        self._client = client
        self._names = names
        self._clock = clock
        self._refusals = Refusals(names, clock)
        # The poll of the accepted names, while others are refused.
        self._background: asyncio.Task[Received] | None = None
        self.contact = client.contact
        self.reachability = reachability
        self.due_at = clock() + LONGEST_ANSWER_SECONDS
        """When PubNub has answered or is asked again, at the latest."""

    @property
    def state(self) -> str:
        """One of ``starting``, ``following``, ``unreachable`` and ``refused``."""
        if self.reachability.failing_since is not None:
            return "unreachable"
        if self._refusals:
            return "refused"
        return "starting" if self.reachability.is_starting else "following"

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
            self.reachability.end()
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
        self.reachability.answered(reply.at)
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
            await self._handshake(names)
        except PubNubError as error:
            refused = await self._refuse(error, names)
            if refused:
                return refused
            self.reachability.warn(error, self._names)
            self._refusals.retry_later()
            return Refused(names, is_new=False)  # nothing says that they are accepted
        self._refusals.lift()
        await self._stop_background()
        return None

    async def _refuse(self, error: PubNubError, polled: Names) -> Refused | None:
        names = await find_refused(error, polled, self._handshake)
        if not names:
            return None
        # The refusal of a try tells nothing of the accepted names.
        if self.is_refused or polled != self._refusals.refused:
            self.reachability.refused(with_grant(error))
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
        seconds = self.reachability.failed(error, self._names)
        self.due_at = self._clock() + seconds
        await asyncio.sleep(seconds)

    async def _handshake(self, names: Names) -> None:
        self.due_at = self._clock() + LONGEST_ANSWER_SECONDS
        await self._subscribe(names, HANDSHAKE)

    async def _ask(self, names: Names, cursor: Cursor) -> Received:
        asked_at = self._clock()
        self.due_at = asked_at + LONGEST_ANSWER_SECONDS
        handshake = partial(self._subscribe, names, HANDSHAKE)
        async with self.reachability.probed_by(handshake):
            answer = await self._subscribe(names, cursor)
        received_at = self._clock()
        seconds = received_at - asked_at
        if seconds > LONGEST_ANSWER_SECONDS:
            # The machine was suspended, so the age of the answer is unknown.
            raise PubNubError(f"PubNub's answer took {seconds:.0f} s. It is asked for again.")
        return Received(answer, received_at)

    async def _subscribe(self, names: Names, cursor: Cursor) -> Answer:
        channels = (*names.channels, *names.wildcards)
        return await self._client.subscribe(channels, names.groups, cursor)
