"""A channel with random events, and with what may happen to its Redis: trims, copies put back."""

import time
from random import Random
from typing import Any, Final, Protocol, cast

from redis.asyncio import Redis

from reaction_tally.keys import Keys
from tests.histories import CHANNEL, MESSAGE, added, pruned, removed, restored
from tests.store.examples import apply
from tests.store.journal_follower import Tallies, snapshot
from tests.waiting import wait_until
from worker.domain.action import Event, Identity, Origin
from worker.domain.position import from_seconds
from worker.store.apply_script import Ttls
from worker.store.store import Store

KEYS: Final = Keys()
DAY: Final = 86400
Copy = dict[str, tuple[bytes, int]]
"""Key → its dump, and its life in milliseconds."""


class Holder(Protocol):
    """Who holds the counts of the channel."""

    position: str
    held: dict[str, Tallies]


class RandomChannel:
    """A channel; the seed decides what happens to it."""

    def __init__(self, redis: Redis, seed: int = 0) -> None:
        self.redis = cast("Any", redis)
        self.random = Random(seed)
        self._store = Store(redis, KEYS)
        self._sweeping = Store(redis, KEYS, Ttls(retention_seconds=DAY))
        ages = [from_seconds(time.time() - days * DAY) for days in (0.1, 2, 3)]
        self.messages = [MESSAGE, "1234567890", *ages]

    def events(self) -> list[Event]:
        """Return a batch of observed and inferred events of a few identities."""
        return [self._event() for _ in range(self.random.randint(1, 6))]

    def _event(self) -> Event:
        value = self.random.choice(("👍", "a:b%3A {c}\n"))
        uuid = self.random.choice(("ana", "u: 1", "ben"))
        identity = Identity(CHANNEL, self.random.choice(self.messages), "re:act", value, uuid)
        place = self.random.randrange(4)
        match self.random.randrange(9):
            case 0:
                return pruned(place, identity)
            case 1:
                return restored(place, place, identity)
            case 2 | 3 | 4:
                return removed(place, identity)
            case _:
                return added(place, identity)

    async def write(self, *events: Event) -> None:
        """Apply these events. Without any, apply random ones, or sweep."""
        if not events and not self.random.randrange(12):
            await self._sweeping.sweep(CHANNEL)
            return
        batch = events or self.events()
        await apply(self._store, batch, origin=self.random.choice(list(Origin)))

    async def trim(self) -> None:
        """Trim the journal, or delete it: a journal expires if nothing happens for long."""
        journal = KEYS.journal(CHANNEL)
        if self.random.randrange(4):
            await self.redis.xtrim(journal, maxlen=self.random.randrange(4), approximate=False)
        else:
            await self.redis.delete(journal)
            await self._pass(await self.head())

    async def head(self) -> str:
        """Return the journal's head."""
        return str(await self.redis.get(KEYS.head(CHANNEL)) or "0-0")

    async def is_exact(self, follower: Holder) -> bool:
        """Tell whether the follower holds the counts and the position of now."""
        position = follower.position
        prefix = KEYS.head(CHANNEL).removesuffix("head")
        return (position, follower.held[position]) == await snapshot(self.redis, prefix)

    async def copy(self) -> Copy:
        """Return a copy of all keys, as a backup or a replica has it."""
        keys = [key async for key in self.redis.scan_iter("tally:*")]
        return {key: (await self._dump(key), max(0, await self.redis.pttl(key))) for key in keys}

    async def go_back(self, copy: Copy) -> None:
        """Replace all keys with a copy at once; wait until the clock is past the head."""
        head = await self.head()
        pipe = self.redis.pipeline(transaction=True)
        pipe.flushdb()
        for key, (dump, life) in copy.items():
            pipe.restore(key, life, dump)
        await pipe.execute()
        await self._pass(head)

    async def _pass(self, head: str) -> None:
        """Wait until the clock is past the head, so that no id is given twice."""

        async def is_later() -> bool:
            seconds, microseconds = await self.redis.time()
            return bool(seconds * 1000 + microseconds // 1000 > int(head.partition("-")[0]))

        await wait_until(is_later)

    async def set_clock_ahead(self, seconds: int = 60) -> None:
        """Add an entry of the future, as if Redis's clock were set back afterwards.

        Later entries get ids that count on from it.
        """
        entry_id = f"{int(time.time() + seconds) * 1000}-0"
        entry = {"after": await self.head(), "origin": "live"}
        await self.redis.xadd(KEYS.journal(CHANNEL), entry, id=entry_id)
        await self.redis.set(KEYS.head(CHANNEL), entry_id)

    async def _dump(self, key: str) -> bytes:
        return bytes(await self.redis.execute_command("DUMP", key, NEVER_DECODE=True))
