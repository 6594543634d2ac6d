"""The Redis of a command: the one in REDIS_URL, or the embedded Valkey."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from redis.asyncio import Redis

from worker.store.connection import connect
from worker.store.rollback_detector import RollbackDetector

EMBEDDED_FOLDER: Final = Path(".tally")


@asynccontextmanager
async def opened_redis(
    url: str | None, rollback_detector: RollbackDetector | None = None
) -> AsyncIterator[Redis]:
    """Yield a client of the Redis at ``url``; without one, of the embedded Valkey in ``.tally/``.

    Raises:
        ConfigurationError: the address is malformed, or no Valkey is installed.
        RedisUnfitError: the embedded Valkey does not start.
    """
    if url is not None:
        async with connect(url, rollback_detector) as redis:
            yield redis
        return

    # Only here, because few commands need it.
    from worker.store.embedded import embedded_server  # noqa: PLC0415

    async with (
        embedded_server(EMBEDDED_FOLDER) as embedded_url,
        connect(embedded_url, rollback_detector) as redis,
    ):
        yield redis
