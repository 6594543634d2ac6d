"""Where each subscription's next read begins."""

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Final

from redis.exceptions import ResponseError

from worker.domain.action import Origin
from worker.domain.position import Cursor
from worker.store.batch import batched
from worker.store.heartbeat import (
    IN_USE_SECONDS,
    read_heartbeat_age,
    runs,
)
from worker.store.ownership import FORGOTTEN_SECONDS
from worker.store.redis_errors import redis_errors, translated
from worker.store.script_call import CursorSave, ScriptCall
from worker.store.scripts import call_script
from worker.store.servers import grouped
from worker.store.table import HASH_BATCH, Table, retried

CLOCK_TOLERANCE_SECONDS: Final = 30.0
"""How far in the future a cursor may have been saved: clocks of servers differ a little.

Such a cursor counts as saved just now.
"""
UNKNOWN_AGE_SECONDS: Final = 86_000.0
"""The age of a cursor that was saved in the future: the clock of Redis went back.

It is more than PubNub's cache, so what may have been missed is marked.
"""

LIFE_SECONDS: Final = 7 * 86_400
"""A cursor lives so long after its last save, and after the last heartbeat of its worker.

``apply.lua`` has the same figure.
"""

NO_EVENTS: Final = (Origin.LIVE.value, 0, 0, 0, 0, 0)
"""The options of a call that applies nothing."""


@dataclass(frozen=True, slots=True)
class SavedCursor:
    """A cursor as it was saved."""

    cursor: Cursor
    age_seconds: float
    """The time since then, by Redis's clock."""
    saves: int = 0
    """The number of this save, counted from 1."""
    signs: str = ""
    """The signs of a cluster's shards that the worker trusted then; see ``ShardSigns``."""


Followed = tuple[tuple[str, ...], SavedCursor]
"""The names of a subscription, and its cursor."""


class Cursors(Table):
    """The keys ``cursor:<subscription>`` and ``subscriptions``."""

    async def read(self, subscription: str) -> SavedCursor | None:
        """Return a cursor; None if there is no whole one."""
        (saved,) = await self.read_all([subscription])
        return saved

    @retried
    async def read_all(self, subscriptions: Sequence[str]) -> list[SavedCursor | None]:
        """Return each subscription's cursor, in order."""
        pipe = self._redis.pipeline(transaction=False)
        for subscription in subscriptions:
            pipe.hgetall(self._keys.cursor(subscription))
        pipe.time()
        *hashes, (seconds, microseconds) = await pipe.execute()
        now = seconds + microseconds / 1e6
        return [_saved_cursor(fields, now) for fields in hashes]

    @retried
    async def save(self, *saves: CursorSave) -> None:
        """Save cursors.

        Raises:
            ScriptRefusedError: another program wrote the key of a cursor.
        """
        if not saves:
            return
        sent = self._acknowledged.mark_count
        groups = grouped(self._redis, saves)
        calls = [ScriptCall(self._keys, NO_EVENTS, [], group) for group in groups]
        parts = [(call.keys, call.args) for call in calls]
        answers = list(chain(*await call_script(self._redis, "apply", *parts)))
        self.note_saved(saves, answers, sent)
        for answer in answers:
            if isinstance(answer, str):
                raise translated(ResponseError(answer))

    def note_saved(
        self,
        saves: Sequence[CursorSave],
        answers: Sequence[int | str],
        sent: int,
    ) -> None:
        """Note what the script answered to saves, which were sent after ``sent`` marks.

        A save that Redis refuses gets no number: ``save`` raises why.
        """
        for save, number in zip(saves, answers, strict=True):
            if isinstance(number, str):
                continue
            save.number = number
            if number:
                self._acknowledged.note_save(save.subscription, number, sent)

    def forget(self, subscription: str) -> None:
        """Expect no more of a subscription that has ended."""
        self._acknowledged.saves.pop(subscription, None)

    async def lost(self, saves: Mapping[str, int]) -> set[str]:
        """Return the subscriptions with fewer saves than these."""
        held = await self.held(saves)
        return {name for name, number in saves.items() if held[name] < number}

    async def held(self, subscriptions: Collection[str]) -> dict[str, int]:
        """Return how many saves each subscription has."""
        held: dict[str, int] = {}
        for batch in batched(list(subscriptions), HASH_BATCH):
            cursors = await self.read_all(batch)
            counts = [saved.saves if saved else 0 for saved in cursors]
            held |= zip(batch, counts, strict=True)
        return held

    async def end_heartbeats(self) -> None:
        """Let other settings be chosen: no worker uses the namespace from now on.

        Another worker's next heartbeat contradicts. Readers wait for it: see SILENT_SECONDS.
        """
        seconds = FORGOTTEN_SECONDS - IN_USE_SECONDS
        with redis_errors():
            await self._redis.expire(self._keys.subscriptions, seconds)

    @retried
    async def register(self, subscription: str, names: Collection[str]) -> None:
        """Save the names that a cursor is valid for."""
        key = self._keys.subscriptions
        await self._redis.hset(key, subscription, "\n".join(names))
        await self.keep_registered()

    @retried
    async def keep_registered(self) -> None:
        """Keep the registered names for another day."""
        await self._redis.expire(self._keys.subscriptions, FORGOTTEN_SECONDS)

    @retried
    async def keep_followed(self, subscriptions: Sequence[str]) -> None:
        """Note that a worker follows these subscriptions, whether or not PubNub answers it."""
        for batch in batched(subscriptions, HASH_BATCH):
            keys = map(self._keys.cursor, batch)
            await self._each("expire", keys, LIFE_SECONDS)

    @retried
    async def names_followed(self, seconds: float) -> dict[str, float]:
        """Return the names that a worker has followed within so many seconds.

        Each has the age of its newest cursor, in seconds.
        """
        key = self._keys.subscriptions
        registered = await self._redis.hgetall(key)
        lives = await self._each("pttl", map(self._keys.cursor, registered))
        oldest = 1000 * (LIFE_SECONDS - seconds)
        kept = [name for name, left in zip(registered, lives, strict=True) if left >= oldest]
        ages: dict[str, float] = {}
        for subscription, saved in zip(kept, await self.read_all(kept), strict=True):
            age = saved.age_seconds if saved else UNKNOWN_AGE_SECONDS
            for name in registered[subscription].split("\n"):
                ages[name] = min(age, ages.get(name, age))
        return ages

    @retried
    async def heartbeat_age(self) -> float | None:
        """Return how many seconds ago a worker's last heartbeat was."""
        return await read_heartbeat_age(self._redis, self._keys)

    @retried
    async def has_heartbeat(self) -> bool:
        """Tell whether a worker runs."""
        return runs(await self.heartbeat_age())

    @retried
    async def followed(self) -> list[Followed]:
        """Return the followed names, freshest cursor first, then fewest names.

        A subscription that was absent for a day is forgotten.
        """
        key = self._keys.subscriptions
        registered = await self._redis.hgetall(key)
        cursors = await self.read_all(list(registered))
        followed: list[Followed] = []
        for subscription, saved in zip(registered, cursors, strict=True):
            if saved and saved.age_seconds > FORGOTTEN_SECONDS:
                await self._redis.hdel(key, subscription)
            elif saved:
                names = registered[subscription].split("\n")
                followed.append((tuple(names), saved))
        return sorted(followed, key=lambda item: (item[1].age_seconds, len(item[0])))


def _saved_cursor(fields: Mapping[str, str], now: float) -> SavedCursor | None:
    try:
        cursor = Cursor(fields["timetoken"], int(fields["region"]))
        age_seconds = now - float(fields["saved_at"])
        saves = int(fields.get("saves", 0))
        signs = fields.get("shards", "")
    except (KeyError, ValueError):
        return None
    if age_seconds < -CLOCK_TOLERANCE_SECONDS:
        age_seconds = UNKNOWN_AGE_SECONDS
    return SavedCursor(cursor, max(0.0, age_seconds), saves, signs)


def digest(names: Iterable[str]) -> str:
    """Return the id of a subscription: a digest of its sorted names.

    Names are channels, wildcards and groups. No name holds a newline.
    """
    text = "\n".join(sorted(names))
    return hashlib.sha256(text.encode()).hexdigest()[:32]
