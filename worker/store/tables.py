"""What a worker remembers of its own in Redis, table by table."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

import structlog
from redis.asyncio import Redis

from reaction_tally.keys import Keys
from worker.domain.position import Timetoken
from worker.domain.shards import Shard, Share
from worker.store.cursors import Cursors
from worker.store.damage import damaged_key, sentence
from worker.store.heads import Heads
from worker.store.pending_repairs import GapCause, Marks, PendingRepairs
from worker.store.progress import SavedProgress
from worker.store.proofs import Proofs
from worker.store.redis_retry import RedisRetry
from worker.store.redis_server import RedisServer
from worker.store.refused_users import RefusedUsers
from worker.store.table import Table, retried
from worker.telemetry.text import examples

DEAD_LETTERS: Final = 10_000
"""The quarantine keeps so many entries."""
PAYLOAD_CHARACTERS: Final = 4_096
"""The quarantine keeps so much of a payload."""
SHARD_ROUND_SECONDS: Final = 30 * 86_400
"""A shard that has made no round for so long is forgotten."""
LATELY_SECONDS: Final = 86_400
"""What was pruned counts against the limit for a day."""

log = structlog.get_logger(__name__)


class KnownChannels(Table):
    """The channels ever seen: the set ``channels``."""

    def __init__(
        self,
        redis: Redis,
        keys: Keys,
        retry: RedisRetry | None = None,
        share: Share | None = None,
    ) -> None:
        """``share`` as in ``Tables``."""
        super().__init__(redis, keys, retry)
        self.share = share or Share()

    async def own(self) -> frozenset[str]:
        """Return those of the channels ever seen that this process keeps right."""
        return self.share.own(await self.all())

    @retried
    async def all(self) -> frozenset[str]:
        """Return the channels ever seen."""
        channels = frozenset(await self._redis.smembers(self._keys.channels))
        self._acknowledged.note_channels(channels)
        return channels

    @retried
    async def count(self) -> int:
        """Return how many channels were ever seen."""
        return int(await self._redis.scard(self._keys.channels))

    @retried
    async def uncounted(self, channels: Collection[str]) -> frozenset[str]:
        """Return those of the channels of which no message was counted."""
        names = sorted(channels)
        indexes = map(self._keys.messages, names)
        counts = await self._each("exists", indexes)
        pairs = zip(names, counts, strict=True)
        return frozenset(name for name, count in pairs if not count)

    @retried
    async def unknown(self, channels: Collection[str]) -> frozenset[str]:
        """Return those of the channels that were never seen."""
        names = sorted(channels)
        if not names:
            return frozenset()
        flags = await self._redis.smismember(self._keys.channels, names)
        pairs = zip(names, flags, strict=True)
        return frozenset(name for name, is_known in pairs if not is_known)

    @retried
    async def is_forgotten(self, channel: str) -> bool:
        """Tell whether a channel is not known, and not about to be.

        A new channel is marked before it is added.
        """
        pipe = self._redis.pipeline(transaction=False)
        pipe.exists(self._keys.owed(channel))
        pipe.smismember(self._keys.channels, [channel])
        is_marked, (is_known,) = await pipe.execute()
        return not (is_marked or is_known)

    @retried
    async def add(self, channels: Collection[str]) -> None:
        """Add channels. Only after the repair of a new one is marked."""
        if channels:
            await self._redis.sadd(self._keys.channels, *sorted(channels))
            self._acknowledged.note_channels(channels)

    @retried
    async def forget(self, channel: str) -> None:
        """Remove a channel, with the progress of its repair."""
        keys = self._keys
        await self._redis.srem(keys.channels, channel)
        await self._redis.unlink(keys.progress(channel), keys.pruned(channel))


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """What could not be applied, and why. Others chose its channel."""

    channel: str
    reason: str
    milliseconds: int
    """When it was kept, by the clock of Redis."""


class DeadLetters(Table):
    """What could not be applied: the stream ``quarantine``."""

    @retried
    async def newest(self) -> tuple[int, DeadLetter | None]:
        """Return how many dead letters are kept, and the newest one."""
        key = self._keys.quarantine
        pipe = self._redis.pipeline(transaction=False)
        pipe.xlen(key)
        pipe.xrevrange(key, count=1)
        count, entries = await pipe.execute()
        for entry_id, fields in entries:
            channel, reason = fields.get("channel", ""), fields.get("reason", "")
            return count, DeadLetter(channel, reason, int(entry_id.partition("-")[0]))
        return count, None

    @retried
    async def add(self, channel: str, reason: str, payload: str) -> None:
        """Keep a dead letter; a long payload is cut."""
        entry = {
            "channel": _storable(channel),
            "reason": _storable(reason),
            "payload": _storable(payload)[:PAYLOAD_CHARACTERS],
        }
        key = self._keys.quarantine
        await self._redis.xadd(key, entry, maxlen=DEAD_LETTERS, approximate=True)


def _storable(text: str) -> str:
    # UTF-8 has no lone surrogates.
    return text.encode(errors="backslashreplace").decode()


class LastRound(Table):
    """When the newest complete round began: the key ``round``, or one for each shard."""

    def __init__(
        self,
        redis: Redis,
        keys: Keys,
        retry: RedisRetry | None = None,
        shard: Shard | None = None,
    ) -> None:
        """``shard`` is the one of this process, if channels are divided."""
        super().__init__(redis, keys, retry)
        self._key = self._keys.shard_round(str(shard)) if shard else self._keys.round
        # A shard may be gone for ever.
        self._life = {"ex": SHARD_ROUND_SECONDS} if shard else {}

    @retried
    async def read(self) -> Timetoken | None:
        """Return when it began; None if no round was ever complete."""
        began = await self._redis.get(self._key)
        return str(began) if began else None

    @retried
    async def save(self, began: Timetoken) -> None:
        """Save that the round that began then is complete."""
        await self._redis.set(self._key, began, **self._life)


class PrunedLately(Table):
    """What reconciles have pruned within a day: the keys ``pruned``."""

    @retried
    async def read(self, channel: str) -> int:
        """Return how many entries of a channel were pruned.

        Raises:
            DamagedKeyError: another program wrote the key.
        """
        key = self._keys.pruned(channel)
        count = await self._redis.get(key) or "0"
        if not count.isdecimal():
            raise damaged_key(channel, key, sentence(key, "holds no number"))
        return int(count)

    @retried
    async def add(self, channel: str, count: int) -> None:
        """Count entries, before they are pruned."""
        key = self._keys.pruned(channel)
        pipe = self._redis.pipeline(transaction=True)
        pipe.incrby(key, count)
        pipe.expire(key, LATELY_SECONDS)
        await pipe.execute()


class Tables:
    """Every table of a worker."""

    def __init__(
        self,
        redis: Redis,
        keys: Keys,
        retry: RedisRetry | None = None,
        share: Share | None = None,
        replicas: int = 0,
    ) -> None:
        """``retry`` as in ``Table``, ``replicas`` as in ``PendingRepairs``.

        ``share`` is whose channels are ``own``: default all.
        """
        shard = share.shard if share else None
        self.cursors = Cursors(redis, keys, retry)
        self.pending = PendingRepairs(redis, keys, retry, replicas)
        self.progress = SavedProgress(redis, keys, retry)
        self.pruned = PrunedLately(redis, keys, retry)
        self.channels = KnownChannels(redis, keys, retry, share)
        self.heads = Heads(redis, keys, retry)
        self.rounds = LastRound(redis, keys, retry, shard)
        self.proofs = Proofs(redis, keys, retry)
        self.dead_letters = DeadLetters(redis, keys, retry)
        self.refused_users = RefusedUsers(redis, keys, retry)
        self.server = RedisServer(redis, keys, retry, replicas)

    async def owe(
        self,
        channels: Collection[str],
        cause: GapCause,
        *,
        is_new: bool = True,
    ) -> None:
        """Mark channels, and add them to those ever seen.

        A gap that continues is not ``is_new``, and not logged.
        """
        # A wildcard without known channels misses nothing that anybody could name.
        if is_new and channels:
            named = examples(channels)
            log.warning("gap", cause=cause.value, channels=len(channels), examples=named)
        await self.pending.mark(channels, cause, is_new=is_new)
        # Last: a known channel would never count as a new one.
        await self.channels.add(channels)

    async def remember(self, channel: str) -> Marks:
        """Add a channel to those ever seen; return the mark that a new one gets.

        A new channel needs a repair: a command may fail, or concern a part only.
        """
        own: Marks = {}
        if await self.channels.unknown([channel]):
            before = await self.pending.read(channel)
            await self.pending.mark([channel], GapCause.NEW_CHANNEL)
            marks = await self.pending.read(channel)
            # Marks of a worker are taken away by a reconcile only.
            if GapCause.NEW_CHANNEL not in before:
                cause = GapCause.NEW_CHANNEL.value
                own = {cause: marks[cause]}
        # Last: a known channel would never count as a new one.
        await self.channels.add([channel])
        return own
