"""Connections that cost less than those of redis-py, and never outlive a cancellation."""

import asyncio
from collections.abc import Iterable
from typing import Any, Final

import hiredis
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

CLOSE_SECONDS: Final = 0.5
"""The longest wait for the server's end of TLS."""


def lean(kind: type) -> type:
    """Return a class of redis-py's connections with the mixin."""
    return type("Connection", (LeanConnection, kind), {})


class LeanConnection:
    """Mixin for redis-py's connections.

    redis-py sends with ``wait_for``.
    On Python 3.11 that starts a task for each command, and swallows a cancellation.
    redis-py packs commands in Python; here hiredis does.
    redis-py waits ten seconds for the end of TLS, which a server that hangs never sends.
    """

    async def disconnect(self: Any, nowait: bool = False, **details: Any) -> None:
        """Close the connection. TLS that the server does not end in time is cut."""
        if nowait or self._writer is None:
            await AbstractConnection.disconnect(self, nowait, **details)
            return
        transport = self._writer.transport
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await AbstractConnection.disconnect(self, nowait, **details)
        except (TimeoutError, RedisTimeoutError):
            transport.abort()

    async def send_packed_command(
        self: Any,
        command: Iterable[bytes],
        check_health: bool = True,
    ) -> None:
        """Send a command; after an error the connection is closed."""
        if not self.is_connected:
            await self.connect_check_health(check_health=False)
        if check_health:
            await self.check_health()
        try:
            await self._write(command)
        except BaseException:
            # The next call must not read this answer.
            await self.disconnect(nowait=True)
            raise

    async def _write(self: Any, command: Iterable[bytes]) -> None:
        """Write a command; wait a limited time until the system takes it."""
        try:
            self._writer.writelines(command)
            if self._writer.transport.get_write_buffer_size():
                async with asyncio.timeout(self.socket_timeout):
                    await self._writer.drain()
        except TimeoutError:
            raise RedisTimeoutError("Timeout writing to socket") from None
        except OSError as error:
            raise RedisConnectionError(f"{error} while writing to socket") from error

    def pack_command(self, *args: Any) -> list[bytes]:
        """Return one command as bytes; its name may have two words."""
        if " " in args[0]:
            args = (*args[0].split(), *args[1:])
        return [hiredis.pack_command(args)]

    def pack_commands(self, commands: Iterable[Any]) -> list[bytes]:
        """Return several commands as bytes."""
        packed: list[bytes] = []
        for command in commands:
            packed += self.pack_command(*command)
        return packed
