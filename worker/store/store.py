"""The tallies in Redis: one script call applies a batch of one channel's events."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar, cast

from redis.asyncio import Redis

from worker.domain.action import Added, Event, Origin, Pruned, Removed, Restored
from worker.domain.entry import Outcome
from worker.store import scripts
from worker.store.connection import redis_errors
from worker.store.keys import Keys, action_field, tally_field

MAX_BATCH: Final = 500
"""Events a script call may carry, so that Redis never stalls (and Lua's ``unpack`` never overflows)."""

_OUTCOMES: Final = {"x" if outcome is Outcome.EXPIRED else outcome.value[0]: outcome for outcome in Outcome}
SWEEP_BATCH: Final = 100
"""Messages a sweep deletes at once."""

Item = TypeVar("Item")
_NAMES: Final = {Added: "added", Removed: "removed", Pruned: "pruned", Restored: "restored"}


@dataclass(frozen=True, slots=True)
class Lives:
    """How long things live, in seconds; ``retention_seconds`` is the age at which a message expires (0: never)."""

    tombstone_seconds: int = 3600
    journal_seconds: int = 86400
    retention_seconds: int = 0


@dataclass(frozen=True, slots=True)
class Applied:
    """What one script call did: an outcome for each event, in order, and the journal's head before and after it."""

    outcomes: tuple[Outcome, ...]
    head_before: str
    head_after: str


class Store:
    """Applies events."""

    def __init__(self, redis: Redis, keys: Keys, lives: Lives | None = None) -> None:
        self._keys = keys
        self._lives = lives or Lives()
        self._redis = cast("Any", redis)
        self._apply = redis.register_script(scripts.source("apply"))
        self._sweep = redis.register_script(scripts.source("sweep"))

    async def apply(self, channel: str, events: Sequence[Event], origin: Origin) -> Applied:
        """Apply up to ``MAX_BATCH`` events of one channel, atomically and in order.

        Raises:
            RedisUnavailableError: try again; applying twice is applying once.
            ScriptRefusedError: an event among these can never be applied; nothing was written.
        """
        if len(events) > MAX_BATCH:
            raise ValueError(f"{len(events)} events in one batch; {MAX_BATCH} is the limit")
        keys, args = self._arguments(channel, events, origin)
        with redis_errors():
            head_before, head_after, letters = await self._apply(keys=keys, args=args)
        return Applied(tuple(_OUTCOMES[letter] for letter in letters), head_before, head_after)

    async def sweep(self, channel: str) -> int:
        """Delete the channel's messages that are older than the retention; return how many.

        Raises:
            RedisUnavailableError: try again.
        """
        swept, place = 0, 0
        while self._lives.retention_seconds:
            with redis_errors():
                place, found = await self._redis.zscan(self._keys.messages(channel), place, count=SWEEP_BATCH)
            for batch in batched([message for message, _ in found], SWEEP_BATCH):
                swept += await self._sweep_some(channel, batch)
            if not place:
                break
        return swept

    async def _sweep_some(self, channel: str, messages: Sequence[str]) -> int:
        names = self._keys
        keys = [names.messages(channel), names.journal(channel), names.head(channel)]
        for message in messages:
            keys += names.message(channel, message)
        args: list[str | int] = [self._lives.journal_seconds, self._lives.retention_seconds, *messages]
        with redis_errors():
            return int(await self._sweep(keys=keys, args=args))

    def _arguments(self, channel: str, events: Sequence[Event], origin: Origin) -> tuple[list[str], list[str | int]]:
        names = self._keys
        keys = [names.messages(channel), names.journal(channel), names.head(channel)]
        lives = self._lives
        args: list[str | int] = [
            origin.value,
            lives.tombstone_seconds,
            lives.journal_seconds,
            lives.retention_seconds,
        ]
        numbers: dict[str, int] = {}
        event_args: list[str | int] = []
        for event in events:
            identity = event.identity
            message = identity.message_timetoken
            if message not in numbers:
                numbers[message] = len(numbers) + 1
                keys += (
                    names.counts(channel, message),
                    names.actions(channel, message),
                    names.removed(channel, message),
                )
                args.append(message)
            event_args += (
                numbers[message],
                _NAMES[type(event)],
                action_field(identity.type, identity.value, identity.uuid),
                tally_field(identity.type, identity.value),
                event.action_timetoken,
                _extra(event),
            )
        return keys, args + event_args


def batched(items: Sequence[Item], size: int) -> Iterator[Sequence[Item]]:
    """Yield the items in parts of at most that size."""
    return (items[start : start + size] for start in range(0, len(items), size))


def _extra(event: Event) -> str:
    match event:
        case Added(published=published) | Removed(published=published):
            return published
        case Restored(removed_through=removed_through):
            return removed_through
        case Pruned():
            return ""
