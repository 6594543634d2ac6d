"""A port before a server: what goes through passes, is late, stops without a word, or is cut."""

import asyncio
import socket
import struct
from contextlib import suppress
from enum import Enum
from types import TracebackType
from typing import Final, Self

HOST: Final = "127.0.0.1"
PART_BYTES: Final = 65_536
LATE_SECONDS: Final = 0.4
RESET: Final = struct.pack("ii", 1, 0)
"""SO_LINGER of a connection whose end is a reset."""


class Way(Enum):
    """What happens to what goes through a link."""

    OPEN = "open"
    SLOW = "late"
    """All of it comes, each part later."""
    SILENT = "silent"
    """Nothing comes, no connection ends. What waits comes afterwards, as TCP sends it again."""
    CUT = "cut"
    """Connections are reset, and new ones, too."""


class Link:
    """One listening port. Each source, which is an address, has its own way through it."""

    def __init__(self) -> None:
        self.port = 0
        self._target = 0
        self._ways: dict[str, Way] = {}
        self._changed = asyncio.Event()
        self._through: dict[asyncio.Task[None], str] = {}
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._carry, HOST, 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._server
        self._server.close()
        await self._end(set(self._through.values()))

    def lead_to(self, port: int) -> None:
        """Lead connections to this port."""
        self._target = port

    async def change(self, way: Way, *sources: str) -> None:
        """Give these sources another way, from now on."""
        self._ways.update(dict.fromkeys(sources, way))
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
        if way is Way.CUT:
            await self._end(set(sources))

    def _way(self, source: str) -> Way:
        return self._ways.get(source, Way.OPEN)

    async def _end(self, sources: set[str]) -> None:
        tasks = [task for task, source in self._through.items() if source in sources]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def _carry(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        task = asyncio.current_task()
        assert task
        source = writer.get_extra_info("peername")[0]
        self._through[task] = source
        try:
            if self._way(source) is not Way.CUT:
                await self._passes(source)
                await self._both_ways(source, reader, writer)
        except (OSError, asyncio.CancelledError):
            pass  # one side has gone, or was cut off on purpose
        finally:
            _reset(writer)
            del self._through[task]

    async def _both_ways(
        self,
        source: str,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        inward, outward = await asyncio.open_connection(HOST, self._target)
        ways = [
            asyncio.create_task(self._pass_on(source, reader, outward)),
            asyncio.create_task(self._pass_on(source, inward, writer)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            _reset(outward)

    async def _pass_on(
        self,
        source: str,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        with suppress(OSError):
            while part := await reader.read(PART_BYTES):
                await self._passes(source)
                writer.write(part)
                await writer.drain()
            # The end of a connection does not come through silence, either.
            await self._passes(source)

    async def _passes(self, source: str) -> None:
        """Return when something may go through."""
        if self._way(source) is Way.SLOW:
            await asyncio.sleep(LATE_SECONDS)
        while self._way(source) is Way.SILENT:
            await self._changed.wait()


def _reset(writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    writer.transport.abort()
