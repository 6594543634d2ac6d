"""Is this Redis fit to hold tallies, and are the tallies in it ours?"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, cast

from redis.asyncio import Redis

from worker.errors import RedisUnfitError
from worker.store import scripts
from worker.store.connection import redis_errors
from worker.store.keys import SCHEMA, Keys

FLOOR: Final = (6, 2)


@dataclass(frozen=True, slots=True)
class Claim:
    """Whose tallies a namespace holds: they must not be mixed."""

    subscribe_key: str
    types: str
    """Which types are counted, in words that are equal where the sets are."""


@dataclass(frozen=True, slots=True)
class Fitness:
    """What INFO says of a Redis."""

    version: str
    policy: str

    @property
    def is_recent(self) -> bool:
        """Whether it has what the scripts need."""
        numbers = tuple(int(part) for part in self.version.split(".")[:2] if part.isdigit())
        return numbers >= FLOOR

    @property
    def evicts(self) -> bool:
        """Whether it may throw tallies away when memory is short."""
        return self.policy != "noeviction"


async def fitness(redis: Redis) -> Fitness:
    """Ask INFO, not CONFIG, which managed services block.

    Raises:
        RedisUnavailableError: Redis does not answer, or refuses the credentials.
    """
    with redis_errors():
        # The version and the policy stand in two sections; asking for all of them works on every version and proxy.
        told = await redis.info()
    return Fitness(
        str(told.get("redis_version", "0")), str(told.get("maxmemory_policy", "noeviction"))
    )


async def check_fitness(redis: Redis, *, allow_eviction: bool = False) -> Fitness:
    """Refuse a Redis on which counts could not stay exact.

    Raises:
        RedisUnavailableError: Redis does not answer, or refuses the credentials.
        RedisUnfitError: it is too old, or may evict.
    """
    found = await fitness(redis)
    if not found.is_recent:
        raise RedisUnfitError(
            f"Redis is version {found.version}; 6.2 or newer (or any Valkey) is needed."
        )
    if found.evicts and not allow_eviction:
        raise RedisUnfitError(
            f"Redis has maxmemory-policy {found.policy}: it would throw counts away when memory is short. "
            "Set it to noeviction, or accept lost counts with --allow-eviction."
        )
    return found


async def check_namespace(redis: Redis, keys: Keys, claim: Claim) -> None:
    """Refuse a namespace that holds another schema, keyset or choice of types; claim one that is unclaimed.

    Raises:
        RedisUnavailableError: Redis does not answer.
        RedisUnfitError: the namespace is somebody else's.
    """
    fields = [part for pair in _wanted(claim).items() for part in pair]
    with redis_errors():
        answer = await redis.register_script(scripts.source("claim"))(keys=[keys.meta], args=fields)
    _check(keys, dict(zip(answer[::2], answer[1::2], strict=True)), claim)


async def check_ownership(redis: Redis, keys: Keys, claim: Claim | None = None) -> bool:
    """Tell whether the namespace is claimed, refusing one that is somebody else's; write nothing.

    Without a ``claim`` (a command that only reads tallies), only the schema must be ours.

    Raises:
        RedisUnavailableError: Redis does not answer.
        RedisUnfitError: the namespace is somebody else's.
    """
    with redis_errors():
        found = await cast("Any", redis).hgetall(keys.meta)
    _check(keys, found, claim)
    return bool(found)


def _check(keys: Keys, found: Mapping[str, str], claim: Claim | None) -> None:
    """Refuse what is not wholly ours; only a namespace that says nothing at all is nobody's."""
    wanted = _wanted(claim)
    if wrong := [field for field, value in wanted.items() if found and found.get(field) != value]:
        field = min(
            wrong, key=lambda field: field not in found
        )  # what it says, rather than what it does not say
        raise RedisUnfitError(_refusal(keys, field, found.get(field, "unknown"), wanted[field]))


def _wanted(claim: Claim | None) -> dict[str, str]:
    schema = {"schema": SCHEMA}
    return (
        schema | {"subscribe_key": claim.subscribe_key, "types": claim.types} if claim else schema
    )


def _refusal(keys: Keys, field: str, found: str, wanted: str) -> str:
    namespace = keys.namespace
    match field:
        case "schema":
            return (
                f"The namespace {namespace} holds schema {found}; this worker writes schema {wanted}. "
                "Run the version that wrote it, or set TALLY_NAMESPACE to a new name and backfill."
            )
        case "subscribe_key":
            return (
                f"The namespace {namespace} holds the tallies of another keyset ({_cut(found)}, not {_cut(wanted)}). "
                "Set TALLY_NAMESPACE to a name of its own for this keyset, or correct PUBNUB_SUBSCRIBE_KEY."
            )
        case _:
            return (
                f"The namespace {namespace} counts {found}; this worker is set to count {wanted}. "
                "Set TALLY_TYPES and TALLY_IGNORED_TYPES back, or set TALLY_NAMESPACE to a new name and backfill."
            )


def _cut(subscribe_key: str) -> str:
    """Return enough of a key to know it by, of one as PubNub gives them (42 characters); of a short one its length."""
    length = len(subscribe_key)
    return (
        f"{subscribe_key[:9]}…{subscribe_key[-4:]}"
        if length > 24
        else f"a key of {length} characters"
    )
