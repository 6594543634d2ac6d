"""Counts what is sent to Redis."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from redis.asyncio import Redis


@contextmanager
def round_trips(redis: Redis) -> Iterator[list[str]]:
    """Yield a list that gets what each round trip sends; a pipeline is one."""
    sent: list[str] = []
    kind: Any = redis.connection_pool.connection_class
    send = kind.send_packed_command

    async def counted(connection: Any, command: Any, *args: Any, **options: Any) -> None:
        sent.append(b"".join(command).decode(errors="replace"))
        await send(connection, command, *args, **options)

    with patch.object(kind, "send_packed_command", counted):
        yield sent
