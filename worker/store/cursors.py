"""Where each subscription's next read begins, and which names that cursor speaks for."""

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

from redis.asyncio import Redis

from worker.domain.position import Cursor
from worker.store import scripts
from worker.store.keys import Keys
from worker.store.redis_retry import RedisRetry, retried
from worker.telemetry import metrics

SAVE_CONCURRENCY: Final = 4
"""Cursors on their way to Redis at once; each needs a connection of its own."""
FORGOTTEN_SECONDS: Final = 86_400
"""A subscription that is absent for a day is forgotten: PubNub keeps nothing it could still read."""


@dataclass(frozen=True, slots=True)
class SavedCursor:
    """A cursor as it was saved.

    ``saved_at`` is Unix time, ``age_seconds`` the time since then, both by the clock of Redis.
    ``saves`` is the number of this save, counted from 1.
    """

    cursor: Cursor
    saved_at: float
    age_seconds: float
    saves: int = 0


Followed = tuple[tuple[str, ...], SavedCursor]
"""The names of a subscription, and its cursor."""


def no_age() -> float:
    """Return the age of a cursor that is of now."""
    return 0.0


class Cursors:
    """The keys ``cursor:<subscription>`` and ``subscriptions``."""

    def __init__(self, redis: Redis, keys: Keys, retry: RedisRetry | None = None) -> None:
        # redis-py types its commands for both its clients at once; here they are always awaited.
        self._redis = cast("Any", redis)
        self._keys = keys
        self._save = redis.register_script(scripts.source("save_cursor"))
        self._saving = asyncio.Semaphore(SAVE_CONCURRENCY)
        self.retry = retry

    async def read(self, subscription: str) -> SavedCursor | None:
        """Return the subscription's cursor; None if none was ever saved whole."""
        (saved,) = await self.read_all([subscription])
        return saved

    @retried
    async def read_all(self, subscriptions: Sequence[str]) -> list[SavedCursor | None]:
        """Return the cursor of each subscription, in their order; None where none was saved."""
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

        ``known`` is the number of the newest save this process made.
        ``age`` is asked before each try: how many seconds ago the cursor was true.
        An error it raises ends the tries.

        Returns the number of this save.
        Returns 0, and saves nothing, if Redis has forgotten the save ``known``: it went back.
        """
        async with self._saving:
            age_seconds = max(0.0, age())
            with metrics.script.labels("save_cursor").time():
                number = await self._save(
                    keys=[self._keys.cursor(subscription)],
                    args=[cursor.timetoken, cursor.region, known, age_seconds],
                )
        return int(number)

    @retried
    async def register(self, subscription: str, names: Collection[str]) -> None:
        """Write down which names a subscription follows: its cursor speaks for each of them."""
        await self._redis.hset(self._keys.subscriptions, subscription, "\n".join(names))
        await self.keep_registered()

    @retried
    async def keep_registered(self) -> None:
        """Keep the registered names for another day."""
        await self._redis.expire(self._keys.subscriptions, FORGOTTEN_SECONDS)

    @retried
    async def followed(self) -> list[Followed]:
        """Return which names were followed up to which cursors.

        The freshest cursor comes first; of equally fresh ones, the one with the fewest names.
        A subscription that has been absent for a day is forgotten.
        """
        registered = await self._redis.hgetall(self._keys.subscriptions)
        cursors = await self.read_all(list(registered))
        followed: list[Followed] = []
        for (subscription, names), saved in zip(registered.items(), cursors, strict=True):
            if saved is None:
                continue
            if saved.age_seconds > FORGOTTEN_SECONDS:
                await self._redis.hdel(self._keys.subscriptions, subscription)
            else:
                followed.append((tuple(names.split("\n")), saved))
        return sorted(followed, key=_freshest_first)


def _freshest_first(followed: Followed) -> tuple[float, int]:
    names, saved = followed
    return -saved.saved_at, len(names)


def _saved_cursor(fields: Mapping[str, str], now: float) -> SavedCursor | None:
    try:
        cursor = Cursor(fields["timetoken"], int(fields["region"]))
        saved_at = float(fields["saved_at"])
        saves = int(fields.get("saves", 0))
    except (KeyError, ValueError):
        return None
    return SavedCursor(cursor, saved_at, now - saved_at, saves)
