"""What could not be applied, with the reason: the stream ``quarantine``."""

from typing import Any, Final, cast

from redis.asyncio import Redis

from worker.store.keys import Keys
from worker.store.redis_retry import RedisRetry, retried

LENGTH: Final = 10_000
"""Entries the stream keeps, the newest ones."""
PAYLOAD_CHARACTERS: Final = 4_096


class DeadLetters:
    """Keeps dead letters for somebody to read."""

    def __init__(self, redis: Redis, keys: Keys, retry: RedisRetry | None = None) -> None:
        self._redis = cast("Any", redis)
        self._keys = keys
        self.retry = retry

    @retried
    async def add(self, channel: str, reason: str, payload: str) -> None:
        """Keep one, its payload cut to a readable length."""
        entry = {
            "channel": _storable(channel),
            "reason": _storable(reason),
            "payload": _storable(payload)[:PAYLOAD_CHARACTERS],
        }
        await self._redis.xadd(self._keys.quarantine, entry, maxlen=LENGTH, approximate=True)


def _storable(text: str) -> str:
    """Return the text with escapes for what UTF-8 cannot carry (lone surrogates)."""
    return text.encode(errors="backslashreplace").decode()
