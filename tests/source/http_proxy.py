"""An HTTP proxy on loopback. Every name leads to one server: only the proxy knows the way."""

import asyncio
from base64 import b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from tests.redis_server import free_port


class HttpProxy:
    """Tunnels CONNECT, and forwards other requests, to the server at one port."""

    def __init__(self, port: int, *, user: str | None = None, refusal: int | None = None) -> None:
        """``user`` is ``name:password`` if the proxy demands one. A refusal is a status."""
        self.heads: list[str] = []
        """The first line and the headers of each connection."""
        self._port = port
        self._refusal = refusal
        self._credentials = b64encode(user.encode()).decode() if user else ""
        self._own_port = free_port()
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()

    @asynccontextmanager
    async def address(self) -> AsyncIterator[str]:
        """Serve, and yield host and port."""
        await self.start()
        try:
            yield f"127.0.0.1:{self._own_port}"
        finally:
            self._close()

    async def start(self) -> None:
        """Serve, at the same port as before."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self._own_port)

    def stop(self) -> None:
        """Serve no longer, and cut every connection."""
        self._close()
        for writer in self._open:
            writer.transport.abort()

    def _close(self) -> None:
        if self._server:
            self._server.close()
            self._server = None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        try:
            await self._answer(reader, writer)
        finally:
            self._open.discard(writer)
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        self.heads.append(head.decode())
        status = self._refusal or (200 if self._credentials in head.decode() else 407)
        is_tunnel = head.startswith(b"CONNECT ")
        if status != 200 or is_tunnel:
            length = "" if status == 200 else "Content-Length: 0\r\n"
            writer.write(f"HTTP/1.1 {status} canary\r\n{length}\r\n".encode())
        if status == 200:
            await self._pass_on(reader, writer, b"" if is_tunnel else head)

    async def _pass_on(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: bytes
    ) -> None:
        their_reader, their_writer = await asyncio.open_connection("127.0.0.1", self._port)
        their_writer.write(head)
        await asyncio.gather(_copy(reader, their_writer), _copy(their_reader, writer))


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while part := await reader.read(65_536):
            writer.write(part)
    writer.close()
