"""Whose tallies does a namespace hold?"""

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from hashlib import sha256
from itertools import chain
from secrets import token_hex
from typing import Any, Final, cast

from redis.asyncio import Redis

from reaction_tally.keys import (
    HEARTBEAT_LIFE_SECONDS,
    SCHEMA,
    Keys,
)
from worker.errors import RedisUnfitError
from worker.store.heartbeat import IN_USE_SECONDS, is_in_use
from worker.store.redis_errors import redis_errors
from worker.store.scripts import call_script

FORGOTTEN_SECONDS: Final = HEARTBEAT_LIFE_SECONDS
"""A subscription absent for a day is forgotten."""
LEAST_SHOWN_KEY: Final = 24
"""The ends of a longer subscribe key are shown.

A shorter one is none of PubNub's.
"""

REFUSALS: Final = {
    "schema": "The namespace {} holds schema {}; this worker writes schema {}. "
    "Nothing was changed. Install the version of the worker that wrote it, "
    "restore the copy of Redis from before that version, "
    "or set TALLY_NAMESPACE to a new name and backfill.",
    "subscribe_key": "The namespace {} holds the tallies of another keyset ({}, not {}). "
    "Set TALLY_NAMESPACE to a name of its own for this keyset, "
    "or correct PUBNUB_SUBSCRIBE_KEY.",
    "types": "The namespace {} counts {}; this worker is set to count {}. "
    "Set TALLY_TYPES and TALLY_IGNORED_TYPES back, "
    "or set TALLY_NAMESPACE to a new name and backfill. "
    "If nothing is counted there yet: stop all workers, "
    f"wait {IN_USE_SECONDS} seconds, and start them again.",
}
"""Field of the owner → what its difference means: namespace, held, wanted."""
NO_SCHEMA: Final = (
    "The key {0} has no field schema, which each worker writes there first. "
    "So another program wrote the key, or deleted the field. Nothing was changed. "
    "Set TALLY_NAMESPACE to a name that nobody else uses and backfill, "
    "or restore a copy of Redis."
)
"""The key."""
SHARED: Final = {
    "retention_days": ("TALLY_RETENTION_DAYS", "days"),
    "tombstone_seconds": ("TALLY_TOMBSTONE_SECONDS", "s"),
    "settle_seconds": ("TALLY_SETTLE_SECONDS", "s"),
}
"""Field → the setting, which all processes of a namespace must share, and its unit."""
SHARED_REFUSAL: Final = (
    "{0} is {2} {1} in the workers that use the namespace {4} now; here it is {3} {1}. "
    "Set it to the same value everywhere. To change it, stop all of them, "
    f"wait {IN_USE_SECONDS} seconds, and start them with the new value."
)
"""Setting, unit, held, wanted, namespace."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """The owner of a namespace's tallies, and what its processes share."""

    subscribe_key: str
    types: str
    """The types that are counted: equal texts for equal sets."""
    retention_days: str
    tombstone_seconds: str
    settle_seconds: str


class Ownership:
    """A process's claim to a namespace."""

    def __init__(self, redis: Redis, keys: Keys, claim: Claim) -> None:
        self._redis = cast("Any", redis)
        self._keys = keys
        self._claim = claim
        self._life = ""

    async def claim(self, *, has_lost: bool = False, replaces: str = "") -> bool:
        """Claim the namespace, before anything else is written there.

        ``has_lost`` if this process knows that Redis has lost something.
        Types that it ``replaces`` do not bind the namespace.
        Returns False if Redis lacks the claim that this process made before.

        Raises:
            RedisUnfitError: the namespace has another owner, or is in use
                by processes with other settings.
        """
        before, wanted = self._life, _wanted(self._claim)
        is_used = await is_in_use(self._redis, self._keys)
        args: list[str | int] = [before, token_hex(8), int(has_lost), int(is_used)]
        args += [len(REFUSALS), replaces]
        args += chain.from_iterable(wanted.items())
        with redis_errors():
            (answer,) = await call_script(self._redis, "claim", ([self._keys.meta], args))
        meta = dict(zip(answer[::2], answer[1::2], strict=True))
        _refuse(self._keys, meta, wanted)
        self._life = meta["life"]
        return before in ("", self._life)

    async def is_held(self) -> bool:
        """Tell whether the namespace is as this process claimed it.

        Raises:
            RedisUnfitError: others have claimed it with other settings.
        """
        with redis_errors():
            meta = await self._redis.hgetall(self._keys.meta)
        if meta.get("life") != self._life:
            return False
        _refuse(self._keys, meta, _wanted(self._claim))
        return True


async def check_ownership(
    redis: Redis,
    keys: Keys,
    claim: Claim | None = None,
) -> bool:
    """Refuse another owner's namespace, or other settings than those in use; write nothing.

    Without a ``claim`` only the schema is compared.
    Returns whether the namespace has an owner.

    Raises:
        RedisUnfitError: as in ``Ownership.claim``.
    """
    with redis_errors():
        meta = await cast("Any", redis).hgetall(keys.meta)
    if meta:
        has_shared = claim and await is_in_use(redis, keys)
        _refuse(keys, meta, _wanted(claim), SHARED if has_shared else ())
    return bool(meta)


def _refuse(
    keys: Keys,
    meta: Mapping[str, str],
    wanted: Mapping[str, str],
    shared: Collection[str] = tuple(SHARED),
) -> None:
    """Refuse another owner, and other values of these shared settings."""
    wrong = [field for field in REFUSALS if field in wanted and meta.get(field) != wanted[field]]
    if wrong:
        # A field that differs says more than a field that is missing.
        field = min(wrong, key=lambda name: name not in meta)
        if field == "schema" and field not in meta:
            raise RedisUnfitError(NO_SCHEMA.format(keys.meta))
        pair = [meta.get(field, "unknown"), wanted[field]]
        if field == "subscribe_key":
            pair = list(map(_shown, pair))
        raise RedisUnfitError(REFUSALS[field].format(keys.namespace, *pair))
    for field in shared:
        held = meta.get(field, wanted[field])
        if held != wanted[field]:
            values = (held, wanted[field], keys.namespace)
            raise RedisUnfitError(SHARED_REFUSAL.format(*SHARED[field], *values))


def _wanted(claim: Claim | None) -> dict[str, str]:
    return {"schema": SCHEMA} | (asdict(claim) if claim else {})


def _shown(subscribe_key: str) -> str:
    if len(subscribe_key) > LEAST_SHOWN_KEY:
        return f"{subscribe_key[:9]}…{subscribe_key[-4:]}"
    digest = sha256(subscribe_key.encode())
    return f"a key of {len(subscribe_key)} characters whose SHA-256 begins {digest.hexdigest()[:8]}"
