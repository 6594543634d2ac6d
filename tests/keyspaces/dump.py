"""Everything in a Redis as readable lines, and back."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

LIVES: Final = {"a minute": 60, "an hour": 3600, "a day": 86_400, "a week": 604_800}
"""How long a key lives when it is written; in seconds."""
SHORT: Final = "a minute"
"""The life of whatever lives no longer."""
STILL: Final = 0.8
"""The part of a life that is left, at least: the history takes a minute or so."""
FOR_EVER: Final = "for ever"
NO_LIFE: Final = -1
CURSORS: Final = "tally:cursor:"
SAVED_AT: Final = "saved_at"

Value = Any
"""A text, or a list as ``_read`` has it: sorted where Redis has no order."""


@dataclass(frozen=True, slots=True)
class Line:
    """One key."""

    key: str
    type: str
    life: str
    value: Value


async def read(redis: Any) -> list[Line]:
    """Return all that Redis holds, in the order of the keys."""
    return [await _line(redis, key) for key in sorted(await redis.keys())]


async def _line(redis: Any, key: str) -> Line:
    type = await redis.type(key)
    life = _life(await redis.pttl(key))
    return Line(key, type, life, await _read(redis, key, type))


def _life(milliseconds: int) -> str:
    if milliseconds == NO_LIFE:
        return FOR_EVER
    seconds = milliseconds / 1000
    if seconds <= LIVES[SHORT]:
        return SHORT
    fitting = (name for name, most in LIVES.items() if STILL * most <= seconds <= most)
    return next(fitting, f"{seconds:.0f} seconds")


async def _read(redis: Any, key: str, type: str) -> Value:
    match type:
        case "string":
            return await redis.get(key)
        case "hash":
            return sorted((await redis.hgetall(key)).items())
        case "set":
            return sorted(await redis.smembers(key))
        case "zset":
            pairs = await redis.zrange(key, 0, -1, withscores=True)
            return [[member, int(score)] for member, score in pairs]
        case "stream":
            return await redis.xrange(key)
    raise AssertionError(f"{key} is a {type}")


async def restore(redis: Any, lines: Sequence[Line]) -> None:
    """Write the lines to an empty Redis, as if no time had passed since then.

    Cursors are as old as they were: an old one would be a gap.
    """
    later = int(time.time()) - max(_saved_at(line) for line in lines)
    for line in lines:
        await _write(redis, line)
        if _saved_at(line):
            await redis.hincrby(line.key, SAVED_AT, later)
        if line.life != FOR_EVER:
            await redis.expire(line.key, LIVES[line.life])


async def _write(redis: Any, line: Line) -> None:
    key, value = line.key, line.value
    match line.type:
        case "string":
            await redis.set(key, value)
        case "hash":
            await redis.hset(key, mapping=dict(value))
        case "set":
            await redis.sadd(key, *value)
        case "zset":
            await redis.zadd(key, dict(value))
        case "stream":
            for entry, fields in value:
                await redis.xadd(key, fields, id=entry)


def _saved_at(line: Line) -> int:
    """Return when a cursor was saved, in seconds; 0 for any other key."""
    return int(dict(line.value)[SAVED_AT]) if line.key.startswith(CURSORS) else 0
