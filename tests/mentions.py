"""Finds a text in every key of a Redis."""

import json
from collections.abc import Iterable
from typing import Any


async def mentions(redis: Any, text: str) -> set[str]:
    """Return the keys that have the text in them, plain or as JSON has it."""
    forms = {text, json.dumps(text)[1:-1]}
    return {
        key
        for key in await redis.keys()
        if any(form in held for held in await _texts(redis, key) for form in forms)
    }


async def _texts(redis: Any, key: str) -> Iterable[str]:
    match await redis.type(key):
        case "string":
            return [key, await redis.get(key)]
        case "set":
            return [key, *await redis.smembers(key)]
        case "zset":
            return [key, *await redis.zrange(key, 0, -1)]
        case "hash":
            fields = await redis.hgetall(key)
            return [key, *fields, *fields.values()]
        case "stream":
            entries = [fields for _, fields in await redis.xrange(key)]
            return [key, *(text for fields in entries for pair in fields.items() for text in pair)]
        case "none":  # its life has ended meanwhile
            return []
        case other:
            raise AssertionError(f"{key} is a {other}")
