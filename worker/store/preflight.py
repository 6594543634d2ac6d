"""Is this Redis fit for tallies?"""

import asyncio
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Final, cast

from redis import exceptions
from redis.asyncio import Redis

from reaction_tally.addresses import Host, Kind
from reaction_tally.keys import Keys
from worker.errors import (
    MissingPermissionError,
    RedisUnavailableError,
    RedisUnfitError,
    ScriptRefusedError,
)
from worker.store.connector import connector_of
from worker.store.damage import (
    FORGET_AGAIN,
    find_damage,
    types_of_all_channels,
    wrong_type_ignored,
)
from worker.store.fitness import Fitness
from worker.store.kinds import check_kind
from worker.store.protocol import explained
from worker.store.redis_errors import redis_errors
from worker.store.scripts import VERBS, call_script, source
from worker.store.servers import keys_of_servers, node_named, server_of, servers

COMMANDS: Final = (
    *("+@read", "+@write", "+@connection"),
    *("-@scripting", "-@dangerous"),
    *("-copy", "-move", "-rename", "-renamenx"),
    *("+info", "+time", "+multi", "+exec"),
    *("+evalsha", "+script|load"),
    *("+publish", "+subscribe", "+unsubscribe"),
    # A client of a cluster asks it which node has which slots, and a node that imports a slot.
    *("+cluster|slots", "+asking"),
)
"""What the worker's user of Redis may run, as ACL SETUSER and deploy/redis-users.acl have it."""
_OTHER_USERS: Final = re.compile("reader|operator|readonly|monitor", re.IGNORECASE)
"""Names that users have who should not become writers of tallies, as in deploy/redis-users.acl."""
ANSWER_SECONDS: Final = 4.0
"""How long the first answer of Redis may take."""

NEVER_PRIMARY: Final = 0
"""The ``replica-priority`` of a replica that Sentinels never promote. A cluster ignores it."""

_REFUSED_WRITES: Final = {
    "OOM": "it is full, see its maxmemory",
    "READONLY": "it is a replica",
    "NOREPLICAS": "it has too few replicas, see its min-replicas-to-write",
    "MISCONF": "it cannot save to its disk",
}
"""Code → why Redis takes no writes now."""


async def check_fitness(
    redis: Redis,
    *,
    allow_eviction: bool = False,
    only_reads: bool = False,
) -> Fitness:
    """Refuse a Redis on which counts could not stay exact.

    Raises:
        RedisUnavailableError: Redis does not answer.
        RedisUnfitError: Redis is too old, may evict tallies, takes no writes,
            or does not permit INFO.
    """
    async with explained(redis):
        infos = await _read_info(redis)
    found = [Fitness.of(info) for _, info in infos]
    await check_kind(redis, found[0].mode)
    for (server, _), fitness in zip(infos, found, strict=True):
        with node_named(server):
            fitness.check(allow_eviction=allow_eviction, only_reads=only_reads)
    return max(found, key=lambda fitness: fitness.used_bytes)


async def _read_info(redis: Redis) -> Sequence[tuple[Any, Mapping[str, Any]]]:
    """Return each server, and what it says of itself."""
    # Managed services block CONFIG, so INFO is asked.
    # INFO is asked for all sections: that works in every version and proxy.
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            with _info_is_needed(redis):
                with redis_errors():
                    found = await servers(redis)
                return [(server, await _info_of(server)) for server in found]
    except TimeoutError as error:
        raise RedisUnavailableError(
            f"Redis{_at_host(redis)} does not answer in {ANSWER_SECONDS:g} s. "
            "Is REDIS_URL right, and does a firewall let it through?"
        ) from error


@contextmanager
def _info_is_needed(redis: Redis) -> Iterator[None]:
    """Refuse a server that does not permit what says of it whether it is fit.

    Raises:
        RedisUnfitError: what to grant.
    """
    try:
        yield
    except MissingPermissionError as error:
        needed = ["+info", "+cluster|slots"] if connector_of(redis).kind else ["+info"]
        raise RedisUnfitError(_ungranted(redis, str(error), needed)) from error
    except ScriptRefusedError as error:
        raise RedisUnfitError(
            f"{error}. The worker needs the command INFO, "
            "which says whether Redis keeps all data. "
            "Is it renamed or blocked?"
        ) from error


async def _info_of(server: Any) -> Mapping[str, Any]:
    with node_named(server), redis_errors():
        info: Mapping[str, Any] = await server.execute_command("INFO")
    return info


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
        key, reason = damage
        advice = f". Stop the workers for it. {FORGET_AGAIN}" if key == keys.forgotten else ""
        raise RedisUnfitError(reason + advice)


async def check_permissions(redis: Redis, keys: Keys, replicas: int = 0) -> None:
    """Refuse a user of Redis who may not run what the worker runs.

    Nothing is left behind: a probe key is written and deleted at once.
    So many ``replicas`` of each server must take part.

    Raises:
        RedisUnavailableError: Redis takes no writes now.
        RedisUnfitError: who may not do what, and what to grant.
    """
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            await _load_scripts(redis, keys)
            # First: a Redis that cannot save refuses even PING, in many words.
            await check_writes(redis, keys, replicas)
            await _check_transaction(redis, keys)
    except TimeoutError:
        raise RedisUnavailableError(
            "Redis takes no writes now: it answers INFO, "
            f"but no write in {ANSWER_SECONDS:g} s. "
            "Is it paused, or failing over?"
        ) from None


async def check_replica(
    redis: Redis,
    keys: Keys,
    host: Host,
    *,
    allow_eviction: bool,
) -> str | None:
    """Refuse a replica on which counts would not stay exact, once it is the primary.

    Redis replicates neither its configuration nor its users. Return what ``lacks_publish`` does;
    None if it never becomes the primary.

    Raises:
        RedisUnavailableError: it does not answer.
        RedisUnfitError: what is wrong, and what to do.
    """
    connector = connector_of(redis)
    async with connector.open_server(host) as client:
        try:
            with _info_is_needed(client):
                info = await _info_of(client)
            if connector.kind is Kind.SENTINEL and info.get("slave_priority") == NEVER_PRIMARY:
                return None
            Fitness.of(info).check(allow_eviction=allow_eviction, only_reads=True)
            await _load_scripts(client, keys)
            await _check_transaction(client, keys)
            await _check_commands_of_replica(client, keys)
            return await lacks_publish(client, keys)
        except RedisUnavailableError as error:
            if not isinstance(error.__cause__, exceptions.AuthenticationError):
                raise
            raise RedisUnfitError(
                f"It refuses user {_user(client)!r} of REDIS_URL, whom its primary knows "
                f"({error.__cause__}). Redis does not replicate users: "
                "make the users of the primary there, too."
            ) from error


async def _check_commands_of_replica(client: Redis, keys: Keys) -> None:
    try:
        with redis_errors():
            ((_, *refused),) = await call_script(client, "probe", ([], [keys.probe]))
    except MissingPermissionError as error:
        raise _missing(client, keys, str(error)) from error
    _check_commands(client, refused)


async def lacks_publish(redis: Redis, keys: Keys) -> str:
    """Return what to grant to a user who may not say which channel has changed, or nothing.

    Nothing is published: an ECHO of nothing is an error, so Redis discards the transaction.
    """
    pipe = cast("Any", redis).pipeline(transaction=True)
    pipe.publish(keys.hints, "")
    pipe.execute_command("ECHO")
    try:
        with redis_errors():
            await pipe.execute()
    except MissingPermissionError:
        problem = (
            f"It does not permit PUBLISH to {keys.hints}: "
            "programs that follow changes learn of them some seconds later"
        )
        return _ungranted(redis, problem, [f"&{keys.hints}", "+publish"])
    except ScriptRefusedError:
        return ""
    return ""


async def _load_scripts(redis: Redis, keys: Keys) -> None:
    """Load every script, also one that is there: a failover leads to a server without it."""
    try:
        with redis_errors():
            for verb in VERBS:
                await redis.script_load(source(verb))
    except MissingPermissionError as error:
        raise _missing(redis, keys, str(error)) from error


async def _check_transaction(redis: Redis, keys: Keys) -> None:
    pipe = cast("Any", redis).pipeline(transaction=True)
    pipe.exists(keys.probe)
    try:
        # A replica of a cluster names its primary, to a user who may ask.
        with redis_errors(), suppress(exceptions.MovedError):
            await pipe.execute()
    except (MissingPermissionError, ScriptRefusedError) as error:
        problem = f"Redis does not permit a transaction (MULTI, EXISTS, EXEC): {error}"
        raise _missing(redis, keys, problem) from error


async def check_writes(redis: Redis, keys: Keys, replicas: int = 0) -> None:
    """Make sure that Redis takes writes now, and permits every command of the worker.

    So many ``replicas`` of each server must have them.

    Raises:
        RedisUnavailableError: Redis takes no writes now, and why.
        RedisUnfitError: who may not do what, and what to grant.
    """
    try:
        with redis_errors():
            probes = await keys_of_servers(redis, keys.probe)
            calls = [([key], ()) for key in probes]
            answers = await call_script(redis, "probe", *calls, replicas=replicas)
    except MissingPermissionError as error:
        raise _missing(redis, keys, str(error)) from error
    for key, (reason, *refused) in zip(probes, answers, strict=True):
        with node_named(server_of(redis, key)):
            _check_probe(redis, reason, refused)


def _check_probe(redis: Redis, reason: str, refused: Sequence[str]) -> None:
    """Refuse what one server answered to the probe."""
    if reason:
        raise RedisUnavailableError(f"Redis takes no writes now: {_in_words(reason)}.")
    _check_commands(redis, refused)


def _check_commands(redis: Redis, refused: Sequence[str]) -> None:
    if refused:
        grants = [f"+{command.lower()}" for command in refused]
        commands, user = ", ".join(refused), _user(redis)
        problem = f"The worker uses {commands}, which Redis does not permit to user {user!r}"
        raise RedisUnfitError(_ungranted(redis, problem, grants))


def _in_words(reason: str) -> str:
    """Return what the code of an error means, and the error."""
    codes = re.findall(r"\b[A-Z]{3,}\b", reason)
    known = filter(None, map(_REFUSED_WRITES.get, codes))
    quoted = reason.strip().rstrip(".")
    meaning = next(known, None)
    return f"{meaning} ({quoted})" if meaning else quoted


def _missing(redis: Redis, keys: Keys, problem: str) -> RedisUnfitError:
    """Return the refusal for a key, or for what calls a script."""
    grants = [
        f"~{keys.namespace}:*",
        f"&{keys.hints}",
        *COMMANDS,
    ]
    return RedisUnfitError(_ungranted(redis, problem, grants))


def _ungranted(redis: Redis, problem: str, grants: Sequence[str]) -> str:
    """Return what the user of Redis may not do, and what to type."""
    user = _user(redis)
    command = shlex.join(["redis-cli", "ACL", "SETUSER", user, *grants])
    question = ""
    if _OTHER_USERS.search(user):
        question = (
            f" Is another user meant? {user!r} seems to be no user of a worker, "
            "who needs what `tally` has in deploy/redis-users.acl: "
            f"{' '.join(COMMANDS)}. "
            "Write that user in REDIS_URL. If this one shall write tallies:"
        )
    return f"{problem.rstrip('.')}.{question} As an administrator of Redis, type: {command}"


def _at_host(redis: Redis) -> str:
    """Return `` at HOST:PORT``; nothing for a socket's path."""
    host = connector_of(redis).first_host
    return f" at {host}" if host else ""


def _user(redis: Redis) -> str:
    options = cast("Any", redis).get_connection_kwargs()
    return options.get("username") or "default"
