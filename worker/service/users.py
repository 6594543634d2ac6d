"""The commands about users: what is kept of them, and how they are forgotten."""

from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final, cast

from reaction_tally.keys import Keys
from worker.applying.user_forgetting import ErasureReport, Pause, forget_users
from worker.errors import RedisUnfitError
from worker.reading.user_export import UserExport, export_users
from worker.settings import Settings
from worker.settings.masked import show
from worker.store.connection import opened_redis
from worker.store.ownership import check_ownership
from worker.store.preflight import check_fitness, check_keys, check_permissions
from worker.store.redis_errors import redis_errors
from worker.store.refused_users import RefusedUsers
from worker.store.user_data import UserData
from worker.store.user_erasure import UserErasure

SETTLE_SECONDS: Final = 60.0
"""The settle time of a namespace that does not say it."""


@dataclass(frozen=True, slots=True)
class _Namespace:
    """Tallies in a Redis."""

    redis: Any
    keys: Keys

    @property
    def refused(self) -> RefusedUsers:
        return RefusedUsers(self.redis, self.keys)

    async def settle_seconds(self) -> float:
        """Return how long a worker may keep an event before it is applied."""
        with redis_errors():
            held = await self.redis.hget(self.keys.meta, "settle_seconds")
        return float(held or SETTLE_SECONDS)


async def run_export(settings: Settings, uuids: Collection[str]) -> dict[str, UserExport]:
    """Return what is kept of each user; write nothing."""
    async with _opened(settings) as held:
        data = UserData(held.redis, held.keys, uuids)
        return await export_users(data, held.refused)


async def run_forget_users(
    settings: Settings,
    uuids: Collection[str],
    pause: Pause,
) -> ErasureReport:
    """Forget users; ``pause`` waits until no worker holds an event of theirs."""
    async with _opened(settings, only_reads=False) as held:
        return await forget_users(
            uuids,
            held.refused,
            UserData(held.redis, held.keys, uuids),
            UserErasure(held.redis, held.keys, settings.journal_seconds),
            await held.settle_seconds(),
            pause,
        )


async def run_undo(settings: Settings, uuids: Collection[str]) -> int:
    """Refuse users no more; return how many were refused."""
    async with _opened(settings, only_reads=False) as held:
        return await held.refused.remove(uuids)


@asynccontextmanager
async def _opened(
    settings: Settings,
    *,
    only_reads: bool = True,
) -> AsyncIterator[_Namespace]:
    """Yield the namespace.

    Raises:
        ConfigurationError: there is no address of Redis.
        RedisUnfitError: it holds no tallies, or tallies of another schema.
    """
    keys = Keys(settings.namespace)
    async with opened_redis(settings.redis_url, may_create=False) as redis:
        # To delete is right on every Redis, also on one that evicts.
        await check_fitness(redis, allow_eviction=True, only_reads=only_reads)
        if not await check_ownership(redis, keys):
            url = show("REDIS_URL", settings) or "the embedded Valkey"
            raise RedisUnfitError(
                f"The namespace {keys.namespace} holds no tallies at {url}. "
                "Correct REDIS_URL or TALLY_NAMESPACE."
            )
        if not only_reads:
            await check_permissions(redis, keys)
        await check_keys(redis, keys)
        await RefusedUsers(redis, keys).read()
        yield _Namespace(cast("Any", redis), keys)
