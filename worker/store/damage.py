"""Keys that are not what the worker keeps there: another program wrote them.

Redis says that a type is wrong, but not of which key.
"""

import shlex
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import chain
from typing import Any, Final

from redis.exceptions import ResponseError

from reaction_tally.keys import Keys
from worker.errors import DamagedKeyError
from worker.store.batch import batched

KEYS_AT_ONCE: Final = 500
FORGET_AGAIN: Final = (
    "Then type tally users forget for everybody on your list, and start the workers."
)
"""What to do after the hash of forgotten users was deleted."""

Types = Mapping[str, str]
"""Key → the type that the worker keeps there."""


def types_of_channel(keys: Keys, channel: str, messages: Iterable[str] = ()) -> Types:
    """Return the types of a channel's keys, and of those of these messages."""
    index, journal, head = keys.changed(channel)
    triples = [keys.message(channel, message) for message in messages]
    return {
        index: "zset",
        journal: "stream",
        head: "string",
        keys.owed(channel): "hash",
        keys.progress(channel): "hash",
        keys.pruned(channel): "string",
        **dict.fromkeys(chain.from_iterable(triples), "hash"),
    }


def types_of_all_channels(keys: Keys, subscriptions: Iterable[str]) -> Types:
    """Return the types of the keys that concern all channels."""
    return {
        keys.meta: "hash",
        keys.channels: "set",
        keys.subscriptions: "hash",
        keys.budget: "string",
        keys.quarantine: "stream",
        keys.forgotten: "hash",
        keys.round: "string",
        keys.proven: "zset",
        keys.proven_full: "zset",
        **dict.fromkeys(map(keys.cursor, subscriptions), "hash"),
    }


async def find_damage(
    redis: Any,
    types: Types,
    refusal: str = "",
) -> tuple[str, str] | None:
    """Return a key that another program wrote, and what to do; None if there is none.

    It is a key of a wrong type, or the one that a script's ``refusal`` names.
    """
    named = refusal.rpartition(" in ")[2]
    if named in types:
        return named, sentence(named, "holds what the worker never writes")
    for batch in batched(list(types), KEYS_AT_ONCE):
        pipe = redis.pipeline(transaction=False)
        for key in batch:
            pipe.type(key)
        for key, held in zip(batch, await pipe.execute(), strict=True):
            if held not in (types[key], "none"):
                problem = f"holds a {held}, but the worker keeps a {types[key]} there"
                return key, sentence(key, problem.replace("zset", "sorted set"))
    return None


async def raise_if_damaged(
    redis: Any,
    keys: Keys,
    channel: str,
    messages: Iterable[str] = (),
    refusal: str = "",
) -> None:
    """Look for the reason of a refusal among keys of a channel and of messages.

    Raises:
        DamagedKeyError: another program wrote one of them.
    """
    types = types_of_channel(keys, channel, messages)
    damage = await find_damage(redis, types, refusal)
    if damage:
        raise damaged_key(channel, *damage)


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
