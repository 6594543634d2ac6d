"""What a worker must remember of its own: cursors, debts, a backfill's place, channels met, the quarantine."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, cast

from redis.asyncio import Redis
from redis.exceptions import NoPermissionError, NoScriptError

from worker.domain.position import Cursor, Timetoken
from worker.store import scripts
from worker.store.connection import redis_errors
from worker.store.keys import Keys
from worker.store.store import batched
from worker.telemetry import metrics

FORGOTTEN_SECONDS: Final = 86_400
HASHES_AT_ONCE: Final = 500
QUARANTINE_LENGTH: Final = 10_000
QUARANTINED_CHARACTERS: Final = 4_096


class GapCause(StrEnum):
    """Why a channel may lack events; the field of ``owed``."""

    FIRST_START = "first_start"
    """No cursor: whatever happened before the handshake was not followed."""
    STALE_CURSOR = "stale_cursor"
    """PubNub's cache no longer reaches back to where reading stopped."""
    OVERFLOW = "overflow"
    """An answer was full, so there may have been more."""
    FORBIDDEN = "forbidden"
    """PubNub refused the channel for a while."""
    NEW_CHANNEL = "new_channel"
    """Met for the first time, through a group or a wildcard."""
    QUARANTINED = "quarantined"
    """Redis refused one of its events."""
    REDIS_WENT_BACK = "redis_went_back"
    """Redis holds an older state than it held: a failover, a restored copy."""
    UNPROVEN = "unproven"
    """A reconcile could neither prove nor refute something, or was not allowed to act on it."""


@dataclass(frozen=True, slots=True)
class SavedCursor:
    """A cursor as it was saved, when (Unix time) and how long ago by Redis's clock, and the number of that save."""

    cursor: Cursor
    saved_at: float
    age_seconds: float
    saves: int = 0


@dataclass(frozen=True, slots=True)
class Progress:
    """A backfill's place. Actions between ``newest`` (exclusive) and ``next`` are applied; ``next`` is asked for next.

    ``oldest`` is where it ends (inclusive), or nothing for everything PubNub keeps.
    """

    newest: Timetoken
    next: Timetoken
    oldest: Timetoken | None = None
    actions: int = 0


class Marks:
    """Reads and writes them."""

    def __init__(self, redis: Redis, keys: Keys) -> None:
        # redis-py types its commands for both its clients at once; here they are always awaited.
        self._redis = cast("Any", redis)
        self._keys = keys
        self._save_cursor = redis.register_script(scripts.source("save_cursor"))
        self._owe = scripts.source("owe")
        self._owe_sha = redis.register_script(self._owe).sha
        self._repay = redis.register_script(scripts.source("repay"))
        self._end_progress = redis.register_script(scripts.source("end_progress"))

    async def cursor(self, subscription: str) -> SavedCursor | None:
        """Return where the subscription's next read begins, if it was ever saved whole."""
        return (await self.cursors([subscription]))[0]

    async def cursors(self, subscriptions: Sequence[str]) -> list[SavedCursor | None]:
        """Return where each subscription's next read begins, if it was ever saved whole."""
        with redis_errors():
            pipe = self._redis.pipeline(transaction=False)
            for subscription in subscriptions:
                pipe.hgetall(self._keys.cursor(subscription))
            pipe.time()
            *found, (seconds, microseconds) = await pipe.execute()
        return [_cursor(saved, seconds + microseconds / 1e6) for saved in found]

    async def save_cursor(
        self, subscription: str, cursor: Cursor, known: int = 0, age_seconds: float = 0.0
    ) -> int:
        """Save it, as of so long ago; return the number of this save. Only after everything before it is applied.

        Returns 0, and saves nothing, if Redis has forgotten a save that is ``known``: it went back.
        """
        with redis_errors(), metrics.script.labels("save_cursor").time():
            return int(
                await self._save_cursor(
                    keys=[self._keys.cursor(subscription)],
                    args=[cursor.timetoken, cursor.region, known, max(0.0, age_seconds)],
                )
            )

    async def register(self, subscription: str, names: Iterable[str]) -> None:
        """Say whom a subscription follows, so that its cursor tells about each of them."""
        with redis_errors():
            await self._redis.hset(self._keys.subscriptions, subscription, "\n".join(names))
        await self.still_here()

    async def still_here(self) -> None:
        """Keep what is registered for another day."""
        with redis_errors():
            await self._redis.expire(self._keys.subscriptions, FORGOTTEN_SECONDS)

    async def followed(self) -> list[tuple[tuple[str, ...], SavedCursor]]:
        """Return whom subscriptions followed up to their cursors, the freshest first; of as fresh ones the smallest.

        A subscription that has not been there for a day is forgotten: PubNub has nothing left of what it would read.
        """
        with redis_errors():
            registered = await self._redis.hgetall(self._keys.subscriptions)
        found = []
        cursors = await self.cursors(list(registered))
        for (subscription, names), saved in zip(registered.items(), cursors, strict=True):
            if saved and saved.age_seconds > FORGOTTEN_SECONDS:
                with redis_errors():
                    await self._redis.hdel(self._keys.subscriptions, subscription)
            elif saved:
                found.append((tuple(names.split("\n")), saved))
        return sorted(found, key=lambda each: (-each[1].saved_at, len(each[0])))

    async def owe(self, channels: Iterable[str], gap: GapCause, *, is_new: bool = True) -> None:
        """Mark that these channels need a repair. Written before anything may be forgotten.

        One gap is counted; one that only goes on is not ``is_new``.
        """
        keys = [self._keys.owed(channel) for channel in sorted(channels)]
        with redis_errors():
            try:
                await self._send_debts(keys, gap)
            except NoScriptError:
                await self._redis.script_load(self._owe)
                await self._send_debts(keys, gap)
        metrics.gaps.labels(gap.value).inc(is_new)

    async def _send_debts(self, keys: Iterable[str], gap: GapCause) -> None:
        # Not by calling the script: redis-py would ask first whether Redis knows it, and who is cancelled then leaves a
        # connection behind, which it complains of when that is found.
        pipe = self._redis.pipeline(transaction=False)
        for key in keys:
            pipe.evalsha(self._owe_sha, 1, key, gap.value)
        await pipe.execute()

    async def owed(self, channel: str) -> dict[str, int]:
        """Return cause → milliseconds since 1970 of its newest gap, by Redis's clock."""
        return (await self.debts([channel])).get(channel, {})

    async def debts(self, channels: Iterable[str]) -> dict[str, dict[str, int]]:
        """Return what those of the channels owe that owe anything."""
        names = sorted(channels)
        found = await self._hashes(map(self._keys.owed, names))
        return {
            name: {cause: int(since) for cause, since in owed.items()}
            for name, owed in zip(names, found, strict=True)
            if owed
        }

    async def _hashes(self, keys: Iterable[str]) -> list[dict[str, str]]:
        """Return these hashes, few of which are there; some hundred at once, so that events need not wait for all."""
        found: list[dict[str, str]] = []
        for some in batched(list(keys), HASHES_AT_ONCE):
            with redis_errors():
                if not await self._redis.exists(*some):
                    found += [{} for _ in some]
                    continue
                pipe = self._redis.pipeline(transaction=False)
                for key in some:
                    pipe.hgetall(key)
                found += await pipe.execute()
        return found

    async def repay(self, channel: str, owed: Mapping[str, int]) -> int:
        """Take back the marks a reconcile has repaid, as they were when it began; return how many are left."""
        args = [part for mark in owed.items() for part in mark]
        with redis_errors():
            return int(await self._repay(keys=[self._keys.owed(channel)], args=args))

    async def covered(self) -> Timetoken | None:
        """Return when the newest round that was made began, if any was."""
        with redis_errors():
            began = await self._redis.get(self._keys.round)
        return str(began) if began else None

    async def save_covered(self, began: Timetoken) -> None:
        """Say that a round was made that began then, and all before it."""
        with redis_errors():
            await self._redis.set(self._keys.round, began)

    async def now(self) -> int:
        """Return milliseconds since 1970, by Redis's clock."""
        with redis_errors():
            seconds, microseconds = await self._redis.time()
        return int(seconds) * 1000 + int(microseconds) // 1000

    async def server(self) -> str | None:
        """Return what identifies this run of the server, if it tells."""
        with redis_errors():
            try:
                told = await self._redis.info("server")
            except NoPermissionError:
                return None
        found = told.get("run_id")
        return str(found) if found else None

    async def unknown(self, channels: Iterable[str]) -> frozenset[str]:
        """Return those of the channels that were never seen."""
        names = sorted(channels)
        with redis_errors():
            known = await self._redis.smismember(self._keys.channels, names) if names else []
        return frozenset(name for name, is_known in zip(names, known, strict=True) if not is_known)

    async def remember(self, channels: Iterable[str]) -> None:
        """Add channels to those ever seen. Only after what is owed to a new one is marked."""
        if names := sorted(channels):
            with redis_errors():
                await self._redis.sadd(self._keys.channels, *names)

    async def channels(self) -> frozenset[str]:
        """Return the channels ever seen."""
        with redis_errors():
            return frozenset(await self._redis.smembers(self._keys.channels))

    async def progress(self, channel: str) -> Progress | None:
        """Return the place of a backfill that has not ended."""
        return (await self.places([channel])).get(channel)

    async def places(self, channels: Iterable[str]) -> dict[str, Progress]:
        """Return the places of those channels' backfills that have not ended."""
        names = sorted(channels)
        found = await self._hashes(map(self._keys.progress, names))
        # One that was asked for just when the one before had ended begins where it was asked for.
        wanted = [
            {"newest": saved["again"], "next": saved["again"]} | saved
            if "again" in saved
            else saved
            for saved in found
        ]
        return {
            name: Progress(
                saved["newest"],
                saved["next"],
                saved.get("oldest") or None,
                int(saved.get("actions", 0)),
            )
            for name, saved in zip(names, wanted, strict=True)
            if "newest" in saved and "next" in saved
        }

    async def save_progress(self, place: Progress, *channels: str) -> None:
        """Save the place of these channels' backfills. Only after everything before it is applied."""
        fields: dict[str, str | int] = {
            "newest": place.newest,
            "next": place.next,
            "oldest": place.oldest or "",
            "actions": place.actions,
        }
        with redis_errors():
            pipe = self._redis.pipeline(transaction=False)
            for channel in channels:
                pipe.hset(self._keys.progress(channel), mapping=fields)
            await pipe.execute()

    async def ask_again(self, timetoken: Timetoken, *channels: str) -> None:
        """Ask for another backfill of everything, up to ``timetoken``, after the one under way."""
        with redis_errors():
            pipe = self._redis.pipeline(transaction=False)
            for channel in channels:
                pipe.hset(self._keys.progress(channel), "again", timetoken)
            await pipe.execute()

    async def end_progress(self, channel: str) -> bool:
        """Say that the channel's backfill has ended; tell whether another was asked for, whose place is saved now."""
        with redis_errors():
            return bool(await self._end_progress(keys=[self._keys.progress(channel)]))

    async def quarantine(self, channel: str, reason: str, payload: str) -> None:
        """Keep what could not be understood or applied, cut to a readable length, with the reason."""
        entry = {
            "channel": _storable(channel),
            "reason": _storable(reason),
            "payload": _storable(payload)[:QUARANTINED_CHARACTERS],
        }
        with redis_errors():
            await self._redis.xadd(
                self._keys.quarantine, entry, maxlen=QUARANTINE_LENGTH, approximate=True
            )


def _cursor(saved: Mapping[str, str], now: float) -> SavedCursor | None:
    try:
        cursor, saved_at = (
            Cursor(saved["timetoken"], int(saved["region"])),
            float(saved["saved_at"]),
        )
        return SavedCursor(cursor, saved_at, now - saved_at, int(saved.get("saves", 0)))
    except (KeyError, ValueError):
        return None


def _storable(text: str) -> str:
    """Return the text with what UTF-8 cannot carry (lone surrogates) written as escapes."""
    return text.encode(errors="backslashreplace").decode()
