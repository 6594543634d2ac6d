"""Where each subscription's next read begins, and for which names."""

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from redis.asyncio import Redis

from worker.domain.position import Cursor
from worker.store.keys import Keys
from worker.store.redis_retry import RedisRetry
from worker.store.scripts import Arguments, Script
from worker.store.table import Table, retried
from worker.telemetry import metrics

SAVE_CONCURRENCY: Final = 4
"""Cursors that are saved at once. Each needs a connection of its own."""
FORGOTTEN_SECONDS: Final = 86_400
"""A subscription that is absent for a day is forgotten.

PubNub's cache holds nothing that it could still read.
"""


@dataclass(frozen=True, slots=True)
class SavedCursor:
    """A cursor as it was saved.

    ``age_seconds`` is the time since then, by the clock of Redis.
    ``saves`` is the number of this save, counted from 1.
    """

    cursor: Cursor
    age_seconds: float
    saves: int = 0


Followed = tuple[tuple[str, ...], SavedCursor]
"""The names of a subscription, and its cursor."""


def no_age() -> float:
    """Return the age of a cursor that is true now."""
    return 0.0


class Cursors(Table):
    """The keys ``cursor:<subscription>`` and ``subscriptions``."""

    def __init__(self, redis: Redis, keys: Keys, retry: RedisRetry | None = None) -> None:
        super().__init__(redis, keys, retry)
        self._save = Script(redis, "save_cursor")
        self._saving = asyncio.Semaphore(SAVE_CONCURRENCY)

    async def read(self, subscription: str) -> SavedCursor | None:
        """Return the subscription's cursor; None if there is no whole one."""
        (saved,) = await self.read_all([subscription])
        return saved

    @retried
    async def read_all(self, subscriptions: Sequence[str]) -> list[SavedCursor | None]:
        """Return the cursor of each subscription, in order.

        None stands for a subscription that never saved one.
        """
        pipe = self._redis.pipeline(transaction=False)
        for subscription in subscriptions:
            pipe.hgetall(self._keys.cursor(subscription))
        pipe.time()
        *hashes, (seconds, microseconds) = await pipe.execute()
        now = seconds + microseconds / 1e6
        return [_saved_cursor(fields, now) for fields in hashes]

    @retried
    async def save(
        self,
        subscription: str,
        cursor: Cursor,
        known: int = 0,
        age: Callable[[], float] = no_age,
    ) -> int:
        """Save a cursor. Only after every event before it is applied.

        ``known`` is the number of the newest save of this process.
        ``age`` is called before each try.
        It returns how many seconds ago the cursor was true.
        An error that it raises ends the tries.

        Returns the number of this save.
        Returns 0, and saves nothing, if Redis has forgotten
        the save ``known``: Redis went back.
        """
        key = self._keys.cursor(subscription)
        async with self._saving:
            age_seconds = max(0.0, age())
            args: Arguments = [cursor.timetoken, cursor.region, known, age_seconds]
            with metrics.script.labels("save_cursor").time():
                return int(await self._save.call([key], args))

    @retried
    async def register(self, subscription: str, names: Collection[str]) -> None:
        """Save the names for which a subscription's cursor is valid."""
        await self._redis.hset(self._keys.subscriptions, subscription, "\n".join(names))
        await self.keep_registered()

    @retried
    async def keep_registered(self) -> None:
        """Keep the registered names for another day."""
        key = self._keys.subscriptions
        await self._redis.expire(key, FORGOTTEN_SECONDS)

    @retried
    async def followed(self) -> list[Followed]:
        """Return which names were followed up to which cursors.

        The freshest cursor comes first.
        If two are equally fresh, the one with fewer names comes first.
        A subscription that has been absent for a day is forgotten.
        """
        key = self._keys.subscriptions
        registered = await self._redis.hgetall(key)
        cursors = await self.read_all(list(registered))
        followed: list[Followed] = []
        for subscription, saved in zip(registered, cursors, strict=True):
            if saved is None:
                continue
            if saved.age_seconds > FORGOTTEN_SECONDS:
                await self._redis.hdel(key, subscription)
                continue
            names = registered[subscription].split("\n")
            followed.append((tuple(names), saved))
        return sorted(followed, key=_freshest_first)


def _freshest_first(followed: Followed) -> tuple[float, int]:
    names, saved = followed
    return saved.age_seconds, len(names)


def _saved_cursor(fields: Mapping[str, str], now: float) -> SavedCursor | None:
    try:
        cursor = Cursor(fields["timetoken"], int(fields["region"]))
        age_seconds = now - float(fields["saved_at"])
        saves = int(fields.get("saves", 0))
    except (KeyError, ValueError):
        return None
    return SavedCursor(cursor, age_seconds, saves)
