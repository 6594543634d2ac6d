"""Lua scripts, kept as files: one verb, one script."""

from collections.abc import Sequence
from importlib.resources import files
from typing import Any, cast

from redis.asyncio import Redis
from redis.exceptions import NoScriptError

Arguments = Sequence[str | int | float]
"""The ARGV of one call."""
Call = tuple[Sequence[str], Arguments]
"""The KEYS and the ARGV of one call."""


def source(verb: str) -> str:
    """Return the text of ``lua/<verb>.lua``."""
    path = files(__package__) / "lua" / f"{verb}.lua"
    return path.read_text(encoding="utf-8")


class Script:
    """Calls one script.

    A script that Redis does not know is loaded first.
    It may have been flushed, or a failover led to another server.
    """

    def __init__(self, redis: Redis, verb: str) -> None:
        self._redis = cast("Any", redis)
        self._source = source(verb)
        self._sha = redis.register_script(self._source).sha

    async def call(self, keys: Sequence[str], args: Arguments) -> Any:
        """Return the answer of one call."""
        (answer,) = await self.call_all([(keys, args)])
        return answer

    async def call_all(self, calls: Sequence[Call]) -> Sequence[Any]:
        """Return the answer of each call; all calls in one round trip."""
        try:
            return await self._send(calls)
        except NoScriptError:
            await self._redis.script_load(self._source)
            return await self._send(calls)

    async def _send(self, calls: Sequence[Call]) -> Sequence[Any]:
        if len(calls) == 1:
            [(keys, args)] = calls
            return [await self._redis.evalsha(self._sha, len(keys), *keys, *args)]
        # A script that redis-py registered is not called in the pipeline:
        # redis-py would first ask Redis whether it knows the script.
        # That costs a round trip. If the caller is cancelled there,
        # a broken connection is left behind.
        pipe = self._redis.pipeline(transaction=False)
        for keys, args in calls:
            pipe.evalsha(self._sha, len(keys), *keys, *args)
        return cast("Sequence[Any]", await pipe.execute())
