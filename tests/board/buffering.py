"""A proxy that keeps streams back, as some do."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Final

HEAD_BYTES: Final = 65_536


class BufferingProxy:
    """Passes whole answers on. An answer that does not end never arrives."""

    def __init__(self, host: str, port: int) -> None:
        """The server behind it listens there."""
        self._behind = host, port
        self.kept_back = 0
        """How many answers do not end."""

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass one request on, and its answer back."""
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n")
            answers, requests = await asyncio.open_connection(*self._behind)
            requests.write(head)
            self.kept_back += b" /board/stream" in head
            whole = asyncio.create_task(answers.read(-1))
            gone = asyncio.create_task(reader.read(1))
            await asyncio.wait([whole, gone], return_when=asyncio.FIRST_COMPLETED)
            if whole.done():
                writer.write(whole.result())
                await writer.drain()
            for task in (whole, gone):
                task.cancel()
            requests.close()
        writer.close()


@asynccontextmanager
async def buffering_proxy(address: str) -> AsyncIterator[tuple[BufferingProxy, str]]:
    """Yield a proxy before ``host:port``, and its own ``host:port``."""
    host, _, port = address.partition(":")
    proxy = BufferingProxy(host, int(port))
    server = await asyncio.start_server(proxy.answer, "127.0.0.1", 0, limit=HEAD_BYTES)
    async with server:
        yield proxy, "{}:{}".format(*server.sockets[0].getsockname())
