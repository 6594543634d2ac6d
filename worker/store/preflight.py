"""Is this Redis fit for tallies, and is the namespace ours?"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any, Final, cast

from redis.asyncio import Redis

from worker.errors import RedisUnfitError
from worker.store.keys import SCHEMA, Keys
from worker.store.redis_errors import redis_errors
from worker.store.scripts import call_script

FLOOR: Final = (6, 2)
"""The oldest version of Redis that has what the scripts need."""
LEAST_SHOWN_KEY: Final = 24
"""The ends of a longer subscribe key are shown."""

REFUSALS: Final = {
    "schema": "The namespace {} holds schema {}; this worker writes schema {}. "
    "Run the version that wrote it, "
    "or set TALLY_NAMESPACE to a new name and backfill.",
    "subscribe_key": "The namespace {} holds the tallies of another keyset ({}, not {}). "
    "Set TALLY_NAMESPACE to a name of its own for this keyset, "
    "or correct PUBNUB_SUBSCRIBE_KEY.",
    "types": "The namespace {} counts {}; this worker is set to count {}. "
    "Set TALLY_TYPES and TALLY_IGNORED_TYPES back, "
    "or set TALLY_NAMESPACE to a new name and backfill.",
}
"""Field → what its difference means: namespace, held, wanted."""


@dataclass(frozen=True, slots=True)
class Claim:
    """The owner of a namespace's tallies: they must not be mixed."""

    subscribe_key: str
    types: str
    """The types that are counted: equal texts for equal sets."""


@dataclass(frozen=True, slots=True)
class Fitness:
    """What INFO says of a Redis."""

    version: str
    policy: str

    @property
    def is_recent(self) -> bool:
        """Whether the version has what the scripts need."""
        numbers = re.findall(r"\d+", self.version)
        return tuple(map(int, numbers[:2])) >= FLOOR


async def check_fitness(redis: Redis, *, allow_eviction: bool = False) -> Fitness:
    """Refuse a Redis on which counts could not stay exact.

    Raises:
        RedisUnfitError: Redis is too old, or may evict tallies.
    """
    # Managed services block CONFIG, so INFO is asked.
    # INFO is asked for all sections: that works in every version and proxy.
    with redis_errors():
        info = await redis.info()
    fitness = Fitness(
        str(info.get("redis_version", "0")),
        str(info.get("maxmemory_policy", "noeviction")),
    )
    if not fitness.is_recent:
        raise RedisUnfitError(
            f"Redis is version {fitness.version}; 6.2 or newer (or any Valkey) is needed."
        )
    if fitness.policy != "noeviction" and not allow_eviction:
        raise RedisUnfitError(
            f"Redis has maxmemory-policy {fitness.policy}: "
            "it would delete counts when memory is short. "
            "Set it to noeviction, or accept lost counts with --allow-eviction."
        )
    return fitness


async def check_namespace(redis: Redis, keys: Keys, claim: Claim) -> None:
    """Refuse another owner's namespace; claim one that has no owner.

    Raises:
        RedisUnfitError: the namespace has another owner.
    """
    args = list(chain.from_iterable(_wanted(claim).items()))
    with redis_errors():
        (answer,) = await call_script(redis, "claim", ([keys.meta], args))
    meta = dict(zip(answer[::2], answer[1::2], strict=True))
    _check(keys, meta, claim)


async def check_ownership(
    redis: Redis,
    keys: Keys,
    claim: Claim | None = None,
) -> bool:
    """Refuse another owner's namespace; write nothing.

    Without a ``claim`` only the schema is compared.
    Returns whether the namespace has an owner.
    """
    with redis_errors():
        meta = await cast("Any", redis).hgetall(keys.meta)
    _check(keys, meta, claim)
    return bool(meta)


def _check(keys: Keys, meta: Mapping[str, str], claim: Claim | None) -> None:
    wanted = _wanted(claim)
    wrong = [field for field in wanted if meta.get(field) != wanted[field]]
    if not meta or not wrong:
        return
    # A field that differs says more than a field that is missing.
    field = min(wrong, key=lambda name: name not in meta)
    pair = [meta.get(field, "unknown"), wanted[field]]
    if field == "subscribe_key":
        pair = list(map(_shown, pair))
    raise RedisUnfitError(REFUSALS[field].format(keys.namespace, *pair))


def _wanted(claim: Claim | None) -> dict[str, str]:
    wanted = {"schema": SCHEMA}
    if claim:
        wanted["subscribe_key"] = claim.subscribe_key
        wanted["types"] = claim.types
    return wanted


def _shown(subscribe_key: str) -> str:
    if len(subscribe_key) > LEAST_SHOWN_KEY:
        return f"{subscribe_key[:9]}…{subscribe_key[-4:]}"
    return f"a key of {len(subscribe_key)} characters"
