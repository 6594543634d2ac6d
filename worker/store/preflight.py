"""Is this Redis fit for tallies?"""

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

from redis.asyncio import Redis

from reaction_tally.keys import Keys
from worker.errors import MissingPermissionError, RedisUnfitError
from worker.store.damage import find_damage, types_of_all_channels, wrong_type_ignored
from worker.store.redis_errors import redis_errors
from worker.store.scripts import call_script

FLOOR: Final = (6, 2)
"""The oldest version of Redis that has what the scripts need."""
COMMANDS: Final = (
    *("+@read", "+@write", "+@connection"),
    *("-@scripting", "-@dangerous"),
    *("+info", "+time", "+multi", "+exec"),
    *("+evalsha", "+script|load", "+publish"),
)
"""What the worker's user of Redis may run, as ACL SETUSER and deploy/redis-users.acl have it."""


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
        RedisUnfitError: Redis is too old, may evict tallies, or does not permit INFO.
    """
    # Managed services block CONFIG, so INFO is asked.
    # INFO is asked for all sections: that works in every version and proxy.
    try:
        with redis_errors():
            info = await redis.info()
    except MissingPermissionError as error:
        raise RedisUnfitError(_ungranted(redis, str(error), ["+info"])) from error
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


async def check_keys(redis: Redis, keys: Keys) -> None:
    """Refuse a namespace in which another program wrote a key of all channels.

    Raises:
        RedisUnfitError: which key, and what to do.
    """
    commands = cast("Any", redis)
    subscriptions: list[str] = []
    with redis_errors():
        with wrong_type_ignored():
            subscriptions = await commands.hkeys(keys.subscriptions)
        types = types_of_all_channels(keys, subscriptions)
        damage = await find_damage(redis, types)
    if damage:
        _, reason = damage
        raise RedisUnfitError(reason)


async def check_permissions(redis: Redis, keys: Keys) -> None:
    """Refuse a user of Redis who may not run what the scripts run.

    Nothing is left behind: a probe key is written and deleted at once.

    Raises:
        RedisUnfitError: who may not do what, and what to grant.
    """
    try:
        with redis_errors():
            (refused,) = await call_script(redis, "probe", ([keys.probe], ()))
    except MissingPermissionError as error:
        # It is a key, or what calls a script.
        grants = [f"~{keys.namespace}:*", *COMMANDS]
        problem = str(error)
    else:
        grants = list(map("+{}".format, map(str.lower, refused)))
        commands, user = ", ".join(refused), _user(redis)
        problem = f"The scripts use {commands}, which Redis does not permit to user {user!r}"
    if grants:
        raise RedisUnfitError(_ungranted(redis, problem, grants))


def _ungranted(redis: Redis, problem: str, grants: Sequence[str]) -> str:
    """Return what the user of Redis may not do, and what to type."""
    command = shlex.join(["redis-cli", "ACL", "SETUSER", _user(redis), *grants])
    return f"{problem.rstrip('.')}. As an administrator of Redis, type: {command}"


def _user(redis: Redis) -> str:
    options = cast("Any", redis).get_connection_kwargs()
    return options.get("username") or "default"
