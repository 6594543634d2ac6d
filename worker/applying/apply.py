"""Events into tallies: applied, or quarantined with a reason.

A batch is events of one channel.
One script call carries batches of several channels.
"""

import asyncio
from collections import Counter
from collections.abc import Coroutine, Iterable, Sequence
from typing import TypeVar, cast

from worker.applying.forgotten_users import FreshUsers, without_users
from worker.applying.refusals import Refusals
from worker.applying.sending import ReadTime, Sender, Sent
from worker.domain.action import Event, Origin
from worker.domain.entry import Outcome
from worker.errors import DamagedKeyError, ScriptRefusedError
from worker.source.wire import Decoded, Malformed
from worker.store.redis_retry import RedisRetry
from worker.store.script_call import Batch, CursorSave, batches_of_calls
from worker.store.store import Store
from worker.store.tables import Tables

Result = TypeVar("Result")


class Applier:
    """Applies events of any channels; waits while Redis is away."""

    def __init__(
        self,
        store: Store,
        tables: Tables,
        retry: RedisRetry,
        settle_seconds: float,
    ) -> None:
        """Events older than ``settle_seconds`` are read again."""
        self.clock = retry.clock
        self.rollback_detector = retry.rollback_detector
        self.forgotten_users = FreshUsers(tables.refused_users, retry.clock)
        self._cursors = tables.cursors
        self._retry = retry
        self._settle_seconds = settle_seconds
        self._refusals = Refusals(tables, retry.rollback_detector.acknowledged)
        self._sender = Sender(store, tables, retry, self._refusals, settle_seconds)

    async def apply(
        self,
        decoded: Iterable[Decoded | Event],
        origin: Origin,
        received_at: float,
        asked_at: float | None = None,
        cursors: Sequence[CursorSave] = (),
    ) -> Counter[Outcome]:
        """Apply events, and count the outcomes.

        Malformed ones are quarantined. Cursors are saved at last.
        What concerns forgotten users is left out.
        ``received_at`` is when they were read, in seconds of the clock.
        ``asked_at`` is when PubNub was asked for a page of history.

        Raises:
            StaleError: the events waited longer than the settle time.
                Some may be applied, which does no harm.
            RolledBackError: Redis went back while they were applied.
            DamagedKeyError: a key of a channel is damaged,
                and the events are not live.
                What does not need that key is applied.
                Either way the channel is owed.
        """
        forgotten = await self.forgotten_users.current()
        if forgotten:
            decoded = without_users(forgotten, decoded)
        channels: dict[str, list[Event]] = {}
        malformed: list[Malformed] = []
        for item in decoded:
            if isinstance(item, Malformed):
                malformed.append(item)
            elif item:
                channels.setdefault(item.identity.channel, []).append(item)

        read = ReadTime(received_at, received_at if asked_at is None else asked_at)
        parts = list(batches_of_calls(channels))
        # A cursor must not be saved before the other calls, or before the quarantine.
        together = () if malformed or len(parts) > 1 else cursors
        # Redis works on one call while the next one is prepared.
        calls = [self._apply_batches(batches, origin, read, together) for batches in parts]
        outcomes: Counter[Outcome] = Counter()
        for counted in await all_of(calls):
            outcomes.update(counted)
        # Not before: what is read again because it was stale is quarantined once.
        for item in malformed:
            await self._refusals.quarantine(item)
        unsaved = [save for save in cursors if save.number is None]
        if unsaved:
            await self._cursors.save(*unsaved)
        return outcomes

    def is_stale(self, received_at: float) -> bool:
        """Tell whether live events of that time must be read again."""
        read = ReadTime(received_at, received_at)
        return read.is_stale(self.clock(), self._settle_seconds)

    async def _apply_batches(
        self,
        batches: Sequence[Batch],
        origin: Origin,
        read: ReadTime,
        cursors: Sequence[CursorSave] = (),
    ) -> Counter[Outcome]:
        """Apply batches by one script call; then parts of what Redis refuses."""
        try:
            sent = await self._retry.call(lambda: self._sender.send(batches, origin, read, cursors))
        except ScriptRefusedError as error:
            sent = Sent([error] * len(batches), Counter())

        outcomes = sent.outcomes
        damage: DamagedKeyError | None = None
        for batch, result in zip(batches, sent.results, strict=True):
            if isinstance(result, ScriptRefusedError):
                # If nothing could be sent, this batch may not be why.
                is_cause = len(batches) == 1 or isinstance(result, DamagedKeyError)
                parts = await self._parts(batch, result) if is_cause else [batch]
                for part in parts:
                    outcomes.update(await self._apply_batches([part], origin, read))
            if isinstance(result, DamagedKeyError):
                damage = result
        if damage and origin is not Origin.LIVE:
            raise damage
        return outcomes

    async def _parts(
        self,
        batch: Batch,
        refusal: ScriptRefusedError,
    ) -> list[Batch]:
        """Return the parts of a refused batch that may be applied alone.

        Halves are applied alone until a refused event stands alone.
        It is quarantined.
        """
        channel, events = batch
        if isinstance(refusal, DamagedKeyError):
            await self._refusals.owe_damaged(refusal)
            return _without_message(batch, refusal.key)
        middle = len(events) // 2
        if middle:
            return [(channel, events[:middle]), (channel, events[middle:])]
        await self._refusals.quarantine_event(channel, events[0], refusal)
        return []


async def all_of(calls: Sequence[Coroutine[None, None, Result]]) -> list[Result]:
    """Run calls side by side, and return their results.

    All of them have ended before an error is raised.
    """
    if len(calls) == 1:
        return [await calls[0]]
    results = await asyncio.gather(*calls, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return cast("list[Result]", results)


def _without_message(batch: Batch, key: str) -> list[Batch]:
    """Return the events of other messages, if the key is that of a message."""
    channel, events = batch
    message = key.rpartition(":")[2]
    rest = [event for event in events if event.identity.message_timetoken != message]
    return [(channel, rest)] if 0 < len(rest) < len(events) else []
