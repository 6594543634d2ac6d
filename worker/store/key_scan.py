"""Finds the keys of a namespace, without an index."""

from collections.abc import AsyncIterator, Sequence
from typing import Any
from urllib.parse import unquote

from worker.store.damage import damaged_key, is_wrong_type, sentence
from worker.store.redis_errors import redis_errors
from worker.store.servers import pages_of_keys
from worker.store.table import Table


class KeyScan(Table):
    """Base of the classes that look at all keys: an index may lack a message."""

    def _scan(self, pattern: str) -> AsyncIterator[list[str]]:
        return pages_of_keys(self._redis, pattern)

    def _split(self, key: str) -> tuple[str, str, str]:
        """Return the channel of a key, its kind, and the rest of its name."""
        name = key.removeprefix(f"{self._keys.namespace}:{{")
        # An encoded channel has no brace, so the first one ends it.
        channel, _, name = name.partition("}:")
        kind, _, rest = name.partition(":")
        return unquote(channel), kind, rest

    async def _answers(
        self,
        pipe: Any,
        keys: Sequence[str],
    ) -> list[Any]:
        """Return the answers of a pipeline; ``keys`` are what it asks about.

        Raises:
            DamagedKeyError: another program wrote one of the keys.
        """
        with redis_errors():
            answers = await pipe.execute(raise_on_error=False)
            for key, answer in zip(keys, answers, strict=True):
                self._check(key, answer)
        return list(answers)

    def _check(self, key: str, answer: object) -> None:
        if is_wrong_type(answer):
            channel, _, _ = self._split(key)
            problem = "has another type than the worker gives it"
            reason = sentence(key, problem)
            raise damaged_key(channel, key, reason)
        if isinstance(answer, Exception):
            raise answer


class ChannelScan(KeyScan):
    """Finds channels by their own keys."""

    async def channels(self) -> set[str]:
        """Return every channel that has messages, or is owed a repair."""
        found: set[str] = set()
        async for names in self._scan(f"{self._keys.namespace}:{{*}}:*"):
            found.update(filter(None, map(self._channel_of, names)))
        return found

    def _channel_of(self, key: str) -> str | None:
        # The head of a forgotten channel stays.
        channel, kind, rest = self._split(key)
        return channel if kind in ("messages", "owed") and not rest else None
