"""The tallies in Redis: one script call applies a batch of one channel's events."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from redis.asyncio import Redis

from worker.domain.action import Added, Event, Origin, Pruned, Removed, Restored
from worker.domain.entry import Outcome
from worker.store import scripts
from worker.store.connection import redis_errors
from worker.store.keys import Keys, action_field, tally_field

MAX_BATCH: Final = 500
"""Events a script call may carry, so that Redis never stalls (and Lua's ``unpack`` never overflows)."""

_OUTCOMES: Final = {outcome.value[0]: outcome for outcome in Outcome}
_NAMES: Final = {Added: "added", Removed: "removed", Pruned: "pruned", Restored: "restored"}


@dataclass(frozen=True, slots=True)
class Lives:
    """How long what is not permanent lives, in seconds."""

    tombstone_seconds: int = 3600
    journal_seconds: int = 86400


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
        self._apply = redis.register_script(scripts.source("apply"))

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

    def _arguments(self, channel: str, events: Sequence[Event], origin: Origin) -> tuple[list[str], list[str | int]]:
        names = self._keys
        keys = [names.messages(channel), names.journal(channel), names.head(channel)]
        args: list[str | int] = [origin.value, self._lives.tombstone_seconds, self._lives.journal_seconds]
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


def _extra(event: Event) -> str:
    match event:
        case Added(published=published) | Removed(published=published):
            return published
        case Restored(removed_through=removed_through):
            return removed_through
        case Pruned():
            return ""
