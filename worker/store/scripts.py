"""Lua scripts, kept as files: one verb, one script."""

import hashlib
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from importlib.resources import files
from typing import Any, Final

from redis.exceptions import NoScriptError, RedisError

from worker.store.answers import raise_error
from worker.store.servers import execute_writes, is_cluster

Call = tuple[Sequence[str], Sequence[str | int | float]]
"""The KEYS and the ARGV of one call."""


VERBS: Final = (
    *("apply", "claim", "forget_tombstones", "forget_user", "owe", "probe"),
    *("rank", "rebuild", "repay", "sweep", "take_budget"),
)


@cache
def source(verb: str) -> str:
    """Return the text of ``lua/<verb>.lua``."""
    path = files(__package__) / "lua" / f"{verb}.lua"
    return path.read_text(encoding="utf-8")


@cache
def sha1(verb: str) -> str:
    """Return the digest by which Redis knows the script."""
    text = source(verb).encode()
    return hashlib.sha1(text, usedforsecurity=False).hexdigest()


async def call_script(
    redis: Any,
    verb: str,
    *calls: Call,
    replicas: int = 0,
) -> list[Any]:
    """Return the answer of each call; all calls in one round trip.

    A script that a server does not know is loaded first.
    It may have been flushed, or a failover led to another server.
    So many ``replicas`` must have the writes, too.
    """
    if not calls:
        return []
    answers = dict(enumerate(await _send(redis, verb, calls, replicas)))
    unknown = [place for place, answer in answers.items() if _is_unknown(answer)]
    if unknown:
        await redis.script_load(source(verb))
        # Other servers of a cluster have carried out their calls.
        again = [calls[place] for place in unknown]
        replies = await _send(redis, verb, again, replicas)
        answers.update(zip(unknown, replies, strict=True))
    raise_error(answers.values())
    return [*answers.values()]


def _is_unknown(answer: object) -> bool:
    return isinstance(answer, NoScriptError)


async def load_script(redis: Any, text: str) -> None:
    """Let Redis know a script that somebody else will call by its digest, if it may."""
    with suppress(RedisError, OSError):
        await redis.script_load(text)


async def _send(
    redis: Any,
    verb: str,
    calls: Sequence[Call],
    replicas: int,
) -> Sequence[Any]:
    """Return the answer of each call, which may be an error."""
    try:
        if replicas or len(calls) > 1 or is_cluster(redis):
            return await _send_together(redis, verb, calls, replicas)
        (call,) = calls
        return [await _evalsha(redis, verb, call)]
    except NoScriptError as error:
        return [error] * len(calls)


async def _send_together(
    redis: Any,
    verb: str,
    calls: Sequence[Call],
    replicas: int,
) -> Sequence[Any]:
    # A script that redis-py registered is not called in the pipeline:
    # redis-py would first ask Redis whether it knows the script.
    # That costs a round trip. If the caller is cancelled there,
    # a broken connection is left behind.
    pipe = redis.pipeline(transaction=False)
    for call in calls:
        _evalsha(pipe, verb, call)
    return await execute_writes(redis, pipe, replicas)


def _evalsha(redis: Any, verb: str, call: Call) -> Any:
    """Call a script by its digest."""
    keys, args = call
    return redis.evalsha(sha1(verb), len(keys), *keys, *args)
