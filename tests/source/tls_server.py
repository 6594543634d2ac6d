"""A server that speaks TLS, with a certificate of an authority of the tests."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import datetime
from typing import Final

import trustme

from tests.waiting import LOOK_SECONDS

LOOKS: Final = 200
"""So often a server looks for clients that are still there."""


class TlsServer:
    """Answers the time over TLS, or accepts connections in silence."""

    def __init__(
        self,
        authority: trustme.CA,
        name: str,
        *,
        answers: bool = True,
        not_after: datetime | None = None,
    ) -> None:
        self.accepted = asyncio.Event()
        self._context = None
        if answers:
            self._context = tls_context(authority, name, not_after=not_after)

    @asynccontextmanager
    async def origin(self) -> AsyncIterator[str]:
        """Serve, and yield host and port."""
        server = await asyncio.start_server(self._answer, "127.0.0.1", 0, ssl=self._context)
        try:
            yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        finally:
            await close_in_full(server)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted.set()
        with suppress(OSError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n[17600000000000002]")
        writer.close()


def tls_context(
    authority: trustme.CA,
    *names: str,
    not_after: datetime | None = None,
) -> ssl.SSLContext:
    """Return the TLS of a server whose certificate has these names."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*names, not_after=not_after).configure_cert(context)
    return context


@asynccontextmanager
async def tls_in_front_of(address: str, context: ssl.SSLContext) -> AsyncIterator[int]:
    """Yield a port that speaks TLS and forwards everything to ``host:port``."""
    host, port = address.removeprefix("redis://").split(":")

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                writer.write(data)
        finally:
            writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        onward_reader, onward_writer = await asyncio.open_connection(host, int(port))
        copies = copy(reader, onward_writer), copy(onward_reader, writer)
        await asyncio.gather(*copies, return_exceptions=True)

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        await close_in_full(server)


async def close_in_full(server: asyncio.Server) -> None:
    """Close a server, and wait until the connections of processes that have ended are closed.

    One whose handshake failed, or has not ended, belongs to no handler.
    When the loop ends it would be a leak, which pytest finds in another test.
    """
    # First a wait: asyncio forgets one that is accepted in the step in which the server is closed.
    await asyncio.sleep(LOOK_SECONDS)
    server.close()
    # Python 3.11 has no other way: its ``wait_closed`` waits for nothing.
    for _ in range(LOOKS):
        if not getattr(server, "_active_count", 0):
            return
        await asyncio.sleep(LOOK_SECONDS)
