"""Keys that are not what the worker keeps there: another program wrote them.

Redis says that a type is wrong, but not of which key.
"""

import shlex
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from itertools import chain
from typing import Any, Final

from redis.exceptions import ResponseError

from worker.errors import DamagedKeyError, ScriptRefusedError
from worker.store.batch import batched
from worker.store.keys import Keys
from worker.store.redis_errors import redis_errors

KEYS_AT_ONCE: Final = 500
NAMES: Final = {"zset": "sorted set"}
"""What people call a type, where it is not Redis's own word."""

Types = Mapping[str, str]
"""Key → the type that the worker keeps there."""


def types_of_channel(keys: Keys, channel: str) -> Types:
    """Return the types of a channel's keys, without those of its messages."""
    messages, journal, head = keys.changed(channel)
    return {
        messages: "zset",
        journal: "stream",
        head: "string",
        keys.owed(channel): "hash",
        keys.progress(channel): "hash",
        keys.pruned(channel): "string",
    }


def types_of_messages(keys: Keys, channel: str, messages: Iterable[str]) -> Types:
    """Return the types of a channel's keys, and of those of these messages."""
    triples = [keys.message(channel, message) for message in messages]
    hashes = dict.fromkeys(chain.from_iterable(triples), "hash")
    return {**types_of_channel(keys, channel), **hashes}


def types_of_all_channels(keys: Keys, subscriptions: Iterable[str]) -> Types:
    """Return the types of the keys that concern all channels."""
    return {
        keys.meta: "hash",
        keys.channels: "set",
        keys.subscriptions: "hash",
        keys.budget: "string",
        keys.quarantine: "stream",
        keys.round: "string",
        keys.proven: "zset",
        keys.proven_full: "zset",
        **dict.fromkeys(map(keys.cursor, subscriptions), "hash"),
    }


async def wrong_type(redis: Any, types: Types) -> tuple[str, str] | None:
    """Return the first key of a wrong type, and a sentence about it."""
    for batch in batched(list(types), KEYS_AT_ONCE):
        pipe = redis.pipeline(transaction=False)
        for key in batch:
            pipe.type(key)
        for key, held in zip(batch, await pipe.execute(), strict=True):
            if held not in (types[key], "none"):
                found = _name(held)
                wanted = _name(types[key])
                problem = f"holds a {found}, but the worker keeps a {wanted} there"
                return key, sentence(key, problem)
    return None


def sentence(key: str, problem: str) -> str:
    """Return what is wrong with a key, and what to do."""
    command = shlex.join(["redis-cli", "DEL", key])
    return (
        f"Redis's key {key} {problem}. "
        "Another program wrote it. "
        f"Stop that program, then type: {command}"
    )


def damaged_key(channel: str, key: str, reason: str) -> DamagedKeyError:
    """Return an error that names a channel's key; ``reason`` is a ``sentence``."""
    text = f"Channel {channel!r} is not counted in full. {reason}"
    return DamagedKeyError(text, channel=channel, key=key)


@asynccontextmanager
async def damage_of_message_named(
    redis: Any,
    keys: Keys,
    channel: str,
    message: str,
) -> AsyncIterator[None]:
    """Let a refusal name the key that another program wrote.

    Raises:
        DamagedKeyError: another program wrote this key.
    """
    try:
        yield
    except ScriptRefusedError as error:
        with redis_errors():
            damage = await wrong_type(redis, types_of_messages(keys, channel, [message]))
        if not damage:
            raise
        raise damaged_key(channel, *damage) from error


@contextmanager
def wrong_type_ignored() -> Iterator[None]:
    """Ignore that a key has a wrong type. The other commands of a pipeline are done."""
    try:
        yield
    except ResponseError as error:
        if not is_wrong_type(error):
            raise


def is_wrong_type(answer: object) -> bool:
    """Tell whether Redis's answer is that a key has a wrong type."""
    return isinstance(answer, ResponseError) and "WRONGTYPE" in str(answer)


def _name(type: str) -> str:
    return NAMES.get(type, type)
