"""One subscription's long poll, for ever: answers in order, whatever PubNub does."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from logging import DEBUG, WARNING
from typing import Final

import structlog

from worker.domain.position import HANDSHAKE, Cursor
from worker.errors import ForbiddenError, PubNubError
from worker.source.client import Answer, Client
from worker.source.names import Names
from worker.source.pace import Backoff
from worker.telemetry.complaints import Complaint

REFUSED_SECONDS: Final = 60.0
"""After how long a refused name is asked for again."""
LONGEST_ANSWER_SECONDS: Final = 330.0
"""No poll takes longer, unless the machine was suspended meanwhile."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Received:
    """An answer, and when it came (seconds of the poller's clock)."""

    answer: Answer
    at: float


@dataclass(frozen=True, slots=True)
class Refused:
    """These names were missed until now, and most or all still are: PubNub answers 403 for them."""

    names: Names


@dataclass(frozen=True, slots=True)
class Readmitted:
    """From here on these names are listened to again; what happened meanwhile was missed."""

    names: Names


Item = Received | Refused | Readmitted


def unreachable(clock: Callable[[], float]) -> Complaint:
    """Return a complaint that PubNub does not answer."""
    return Complaint(log, "pubnub_unreachable", "pubnub_answers_again", clock)


class Poller:
    """Polls one subscription: backs off for ever, never gives up, never moves the cursor by itself."""

    def __init__(
        self,
        client: Client,
        names: Names,
        backoff: Backoff,
        clock: Callable[[], float],
        complaint: Complaint | None = None,
    ) -> None:
        """``complaint`` is shared by all who would complain of the same PubNub."""
        self._client = client
        self._names = names
        self._backoff = backoff
        self._clock = clock
        self._refused: frozenset[str] = frozenset()
        self._told: frozenset[str] = frozenset()
        self._retry_at = 0.0
        self._complaint = complaint or unreachable(clock)
        self.answered_at: float | None = None
        """When PubNub answered last, in seconds of the clock."""
        self.due_at = clock() + LONGEST_ANSWER_SECONDS
        """By when it has an answer, or asks again."""

    @property
    def state(self) -> str:
        """What it is at: ``starting``, ``following``, ``unreachable`` or ``refused``."""
        if self._backoff.failures:
            return "unreachable"
        if self._refused:
            return "refused"
        return "following" if self.answered_at is not None else "starting"

    async def items(self, cursor: Cursor) -> AsyncIterator[Item]:
        """Yield what happens after ``cursor``, which may be the handshake.

        What was refused before is asked for anew: whoever begins again must hear of it again.
        """
        self._refused = frozenset()
        try:
            async for item in self._items(cursor):
                yield item
        finally:
            self._complaint.forget(self)

    async def _items(self, cursor: Cursor) -> AsyncIterator[Item]:
        while True:
            trying_all = self._refused and self._clock() >= self._retry_at
            names = self._names.without(self._refused) if self._refused and not trying_all else self._names
            try:
                answer = await self._poll(names, cursor)
            except ForbiddenError as error:
                yield self._refuse(error, names, await self._named(error, names))
            except TimeoutError:  # time to ask for the refused names again
                continue
            except PubNubError as error:
                self._complaint.say(self, reason=str(error), names=len(self._names.all))
                wait = self._backoff.failed(error)
                self.due_at = self._clock() + wait
                await asyncio.sleep(wait)
            else:
                self._backoff.succeeded()
                self._complaint.over(self)
                self.answered_at = self._clock()
                if trying_all:
                    yield self._readmit()
                yield Received(answer, self.answered_at)
                cursor = answer.cursor

    async def _poll(self, names: Names, cursor: Cursor) -> Answer:
        """Ask once; where names are refused, no longer than until they are tried again."""
        async with asyncio.timeout(max(0.0, self._retry_at - self._clock()) if names != self._names else None):
            if not names:
                self.due_at = self._retry_at
                await asyncio.Event().wait()
            return await self._ask(names, cursor)

    async def _ask(self, names: Names, cursor: Cursor) -> Answer:
        asked_at = self._clock()
        self.due_at = asked_at + LONGEST_ANSWER_SECONDS
        answer = await self._client.subscribe((*names.channels, *names.wildcards), names.groups, cursor)
        if (seconds := self._clock() - asked_at) > LONGEST_ANSWER_SECONDS:
            # Nobody knows when it came: the machine was suspended with it.
            raise PubNubError(f"PubNub's answer was {seconds:.0f} s on its way; asking again.")
        return answer

    async def _named(self, error: ForbiddenError, asked: Names) -> frozenset[str]:
        """Return who is refused. Where PubNub does not say, ask for each name by itself, with a handshake."""
        named = (error.channels | {f":{group}" for group in error.groups}) & frozenset(asked.all)
        if named or len(asked.all) == 1:
            return named or frozenset(asked.all)
        refused: set[str] = set()
        for each in asked.split(1):
            try:
                await self._ask(each, HANDSHAKE)
            except ForbiddenError:
                refused.update(each.all)
            except PubNubError:
                return frozenset(asked.all)
        return frozenset(refused or asked.all)

    def _refuse(self, error: ForbiddenError, asked: Names, named: frozenset[str]) -> Refused:
        """Leave out who was refused, for a while."""
        before = self._refused
        self._refused = named if asked == self._names else before | named
        self._retry_at = self._clock() + REFUSED_SECONDS
        # Said once, not at every try.
        log.log(
            DEBUG if self._refused == self._told else WARNING,
            "pubnub_refused",
            names=sorted(self._refused),
            retry_seconds=REFUSED_SECONDS,
            reason=str(error),
        )
        self._told = self._refused
        # Whoever is no longer refused was, until now.
        return Refused(self._only(before | self._refused))

    def _readmit(self) -> Readmitted:
        names, self._refused, self._told = self._only(self._refused), frozenset(), frozenset()
        log.info("pubnub_readmitted", names=sorted(names.all))
        return Readmitted(names)

    def _only(self, names: frozenset[str]) -> Names:
        return self._names.only(names)
