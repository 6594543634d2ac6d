"""One subscription's long poll, for ever: answers in order, whatever PubNub does."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from logging import DEBUG, WARNING
from typing import Final

import structlog

from worker.domain.position import HANDSHAKE, Cursor
from worker.errors import ForbiddenError, PubNubError
from worker.source.backoff import Backoff
from worker.source.client import Answer, Client
from worker.source.names import Names
from worker.telemetry.throttled_warning import ThrottledWarning

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
    is_new: bool = True
    """Whether others were refused when this was said last; it is said again at every try."""


@dataclass(frozen=True, slots=True)
class Readmitted:
    """From here on these names are listened to again; what happened meanwhile was missed."""

    names: Names


Item = Received | Refused | Readmitted


def unreachable(clock: Callable[[], float]) -> ThrottledWarning:
    """Return a complaint that PubNub does not answer."""
    return ThrottledWarning(log, "pubnub_unreachable", "pubnub_answers_again", clock)


class Poller:
    """Polls one subscription: backs off for ever, never gives up, never moves the cursor by itself."""

    def __init__(
        self,
        client: Client,
        names: Names,
        backoff: Backoff,
        clock: Callable[[], float],
        warning: ThrottledWarning | None = None,
    ) -> None:
        """``complaint`` is shared by all who would complain of the same PubNub."""
        self._client = client
        self._names = names
        self._backoff = backoff
        self._clock = clock
        self._refused: frozenset[str] = frozenset()
        self._told_of: frozenset[str] = frozenset()
        self._is_let_in = False
        """Whether those who were refused need not be any more; an answer for all of them has yet to come."""
        self._rest: asyncio.Task[Received] | None = None
        """A poll for the others, which goes on while somebody looks whether they are."""
        self._retry_at = 0.0
        self._warning = warning or unreachable(clock)
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

    @property
    def is_refused(self) -> bool:
        """Whether PubNub refuses every one of its names."""
        return not self._names.without(self._refused)

    async def items(self, cursor: Cursor) -> AsyncIterator[Item]:
        """Yield what happens after ``cursor``, which may be the handshake.

        What was refused before is asked for anew: whoever begins again must hear of it again.
        """
        self._refused, self._is_let_in = frozenset(), False
        try:
            while True:
                asked = self._names if self._is_let_in else self._names.without(self._refused)
                try:
                    told = await self._told(asked, cursor)
                except ForbiddenError as error:
                    yield self._refuse(
                        error, await self._named(error, asked) | (self._refused - set(asked.all))
                    )
                except PubNubError as error:
                    await self._wait_after(error)
                else:
                    if isinstance(told, Refused):
                        yield told
                    elif told:
                        self.answered_at = told.at
                        self._backoff.succeeded()
                        self._warning.recovered(self)
                        if self._is_let_in:
                            yield self._readmit()
                        yield told
                        cursor = told.answer.cursor
        finally:
            self._warning.drop(self)
            await self._hang_up()

    async def _told(self, asked: Names, cursor: Cursor) -> Received | Refused | None:
        """Return PubNub's answer; or who is still refused, once a minute; or nothing, when they are let in again."""
        if not asked or self._rest or asked != self._names:
            return await self._told_beside(asked, cursor)
        return await self._ask(asked, cursor)

    async def _told_beside(self, asked: Names, cursor: Cursor) -> Received | Refused | None:
        """Listen to the rest, and look once a minute whether those who are refused still are.

        Beside it, and not in its place: a poll that is cut every minute never comes to the answer of an idle one.
        """
        if asked and not self._rest:
            self._rest = asyncio.create_task(self._ask(asked, cursor))
        until = max(0.0, self._retry_at - self._clock())
        if not self._rest:
            self.due_at = self._retry_at
            await asyncio.sleep(until)
        elif (await asyncio.wait([self._rest], timeout=until))[0]:
            rest, self._rest = self._rest, None
            return rest.result()
        return await self._look_at_refused()

    async def _look_at_refused(self) -> Refused | None:
        asked = self._only(self._refused)
        try:
            await self._ask(asked, HANDSHAKE)
        except ForbiddenError as error:
            still = await self._named(error, asked)
            if still != self._refused:
                await self._hang_up()
            return self._refuse(error, still)
        except (
            PubNubError
        ) as error:  # as far as anybody knows they still are; the others are listened to meanwhile
            self._warning.failing(self, reason=str(error), names=len(self._names.all))
            self._retry_at = self._clock() + REFUSED_SECONDS
            return Refused(asked, is_new=False)
        self._is_let_in = True
        await self._hang_up()
        return None

    async def _hang_up(self) -> None:
        if self._rest:
            rest, self._rest = self._rest, None
            rest.cancel()
            await asyncio.gather(
                rest, return_exceptions=True
            )  # an answer is not lost: it is asked for again

    async def _wait_after(self, error: PubNubError) -> None:
        self._warning.failing(self, reason=str(error), names=len(self._names.all))
        wait = self._backoff.failed(error)
        self.due_at = self._clock() + wait
        await asyncio.sleep(wait)

    async def _ask(self, names: Names, cursor: Cursor) -> Received:
        asked_at = self._clock()
        self.due_at = asked_at + LONGEST_ANSWER_SECONDS
        answer = await self._client.subscribe(
            (*names.channels, *names.wildcards), names.groups, cursor
        )
        received = Received(answer, self._clock())
        if (seconds := received.at - asked_at) > LONGEST_ANSWER_SECONDS:
            # Nobody knows when it came: the machine was suspended with it.
            raise PubNubError(f"PubNub's answer was {seconds:.0f} s on its way; asking again.")
        return received

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

    def _refuse(self, error: ForbiddenError, refused: frozenset[str]) -> Refused:
        """Leave these out, for a while."""
        before, self._refused, self._is_let_in = self._refused, refused, False
        self._retry_at = self._clock() + REFUSED_SECONDS
        is_new = refused != self._told_of
        # Said once, not at every try.
        log.log(
            WARNING if is_new else DEBUG,
            "pubnub_refused",
            names=sorted(refused),
            retry_seconds=REFUSED_SECONDS,
            reason=str(error),
        )
        self._told_of = refused
        # Whoever is no longer refused was, until now.
        return Refused(self._only(before | refused), is_new)

    def _readmit(self) -> Readmitted:
        names, self._is_let_in = self._only(self._refused), False
        self._refused, self._told_of = frozenset(), frozenset()
        log.info("pubnub_readmitted", names=sorted(names.all))
        return Readmitted(names)

    def _only(self, names: frozenset[str]) -> Names:
        return self._names.only(names)
