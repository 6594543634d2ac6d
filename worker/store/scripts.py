"""Lua scripts, kept as files: one verb, one script."""

import hashlib
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from importlib.resources import files
from typing import Any, Final

from redis.exceptions import NoScriptError, RedisError

from worker.store.servers import is_cluster, written

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
    answers = await _send(redis, sha1(verb), calls, replicas)
    unknown = [number for number, answer in enumerate(answers) if _is_unknown(answer)]
    if unknown:
        await redis.script_load(source(verb))
        # Other servers of a cluster have carried out their calls.
        again = [calls[number] for number in unknown]
        replies = await _send(redis, sha1(verb), again, replicas)
        for number, reply in zip(unknown, replies, strict=True):
            answers[number] = reply
    for answer in answers:
        if isinstance(answer, Exception):
            raise answer
    return answers


def _is_unknown(answer: object) -> bool:
    return isinstance(answer, NoScriptError)


async def load_script(redis: Any, text: str) -> None:
    """Let Redis know a script that somebody else will call by its digest, if it may."""
    with suppress(RedisError, OSError):
        await redis.script_load(text)


async def _send(
    redis: Any,
    sha: str,
    calls: Sequence[Call],
    replicas: int,
) -> list[Any]:
    """Return the answer of each call, which may be an error."""
    if len(calls) == 1 and not replicas and not is_cluster(redis):
        keys, args = calls[0]
        try:
            return [await redis.evalsha(sha, len(keys), *keys, *args)]
        except NoScriptError as error:
            return [error]
    # A script that redis-py registered is not called in the pipeline:
    # redis-py would first ask Redis whether it knows the script.
    # That costs a round trip. If the caller is cancelled there,
    # a broken connection is left behind.
    pipe = redis.pipeline(transaction=False)
    for keys, args in calls:
        pipe.evalsha(sha, len(keys), *keys, *args)
    try:
        return await written(redis, pipe, replicas)
    except NoScriptError as error:
        return [error] * len(calls)
