"""The types of a namespace bind it from its first counted event on, and not before.

A slip in TALLY_TYPES counts nothing. So it can be corrected without harm.
"""

from collections.abc import Collection
from dataclasses import replace
from typing import Any, Final, cast

import structlog
from redis.asyncio import Redis

from reaction_tally.keys import SCHEMA, Keys
from worker.domain.position import TICKS_PER_MILLISECOND
from worker.store.batch import batched
from worker.store.heartbeat import is_in_use
from worker.store.ownership import Claim, Ownership
from worker.store.pending_repairs import GapCause
from worker.store.progress import Progress
from worker.store.redis_errors import redis_errors
from worker.store.tables import Tables

CHANNELS_AT_ONCE: Final = 500

log = structlog.get_logger(__name__)


async def replaceable_types(redis: Redis, keys: Keys, claim: Claim) -> str | None:
    """Return the other types that a namespace is claimed for, if they do not bind it.

    None if they do: something is counted there, or a worker uses the namespace.
    """
    with redis_errors():
        meta = await cast("Any", redis).hgetall(keys.meta)
    held = meta.get("types", claim.types)
    owner = meta.get("schema"), meta.get("subscribe_key")
    if held == claim.types or owner != (SCHEMA, claim.subscribe_key):
        return None
    if await is_in_use(redis, keys):
        return None
    if await _has_counted(redis, keys):
        return None
    return str(held)


async def _has_counted(redis: Redis, keys: Keys) -> bool:
    """Tell whether a channel has a message that was counted."""
    known = Tables(redis, keys).channels
    channels = sorted(await known.all())
    for part in batched(channels, CHANNELS_AT_ONCE):
        uncounted = await known.uncounted(part)
        if len(uncounted) < len(part):
            return True
    return False


async def acceptable_claim(redis: Redis, keys: Keys, claim: Claim) -> Claim:
    """Return the claim as a command that writes nothing compares it."""
    held = await replaceable_types(redis, keys, claim)
    return replace(claim, types=held) if held else claim


async def claim_namespace(
    redis: Redis,
    keys: Keys,
    claim: Claim,
    ownership: Ownership,
) -> None:
    """Make a claim, also over other types that do not bind the namespace.

    Under these others the past of all channels was read in vain: it is owed again.
    Each channel begins a backfill as if one had been interrupted at its first action.

    Raises:
        RedisUnfitError: as in ``Ownership.claim``. Another process may have
            replaced these types first.
    """
    held = await replaceable_types(redis, keys, claim)
    if held is None:
        await ownership.claim()
        return
    channels = await _owe_again(redis, keys)
    # Last: a command that is interrupted before does all of it again.
    await ownership.claim(replaces=held)
    log.warning(
        "types_replaced",
        before=held,
        now=claim.types,
        channels=channels,
    )


async def _owe_again(redis: Redis, keys: Keys) -> int:
    """Mark all channels, whose past was read in vain; return how many there are."""
    tables = Tables(redis, keys)
    channels = await tables.channels.all()
    if channels:
        await tables.pending.mark(channels, GapCause.NEW_CHANNEL)
    await _begin_backfills(redis, keys, channels)
    return len(channels)


async def _begin_backfills(redis: Redis, keys: Keys, channels: Collection[str]) -> None:
    """Save for each channel that its whole past is wanted.

    A worker takes over what is saved there as soon as it starts.
    """
    tables = Tables(redis, keys)
    now = str(await tables.server.now() * TICKS_PER_MILLISECOND)
    beginning = Progress(newest=now, next=now)
    for part in batched(sorted(channels), CHANNELS_AT_ONCE):
        with redis_errors():
            await redis.delete(*map(keys.progress, part))
        await tables.progress.save(beginning, *part)
