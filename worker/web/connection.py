"""Connections with a limited life, and how many there may be.

A server has three kinds of them.
A connection that has asked for nothing yet, or for a page of the worker, is an ordinary one.
A connection that has asked a site for something belongs to that site.
A connection with a stream lasts as long as the stream does.
Each kind is bounded by itself: neither a site nor its streams take the places of health checks.
"""

import asyncio
import logging
import socket
from collections.abc import Callable
from typing import Any, Final

from aiohttp import web

from worker.web.problems import problem_response

MAX_CONNECTIONS: Final = 64
"""Connections that are no streams."""
MAX_SITE_CONNECTIONS: Final = 256
"""So many more, where the worker serves a site. Streams are not among them."""
MAX_STREAMS: Final = 256
CONNECTION_SECONDS: Final = 30.0
"""The longest life of a connection. A slow request ends with it."""
SILENT_SECONDS: Final = 60.0
"""How long the machine of a stream's client may acknowledge nothing."""
MAX_LINE: Final = 4_096
MAX_HEADER: Final = 8_192
MAX_HEADERS: Final = 50

SILENCE: Final = logging.Logger("http")
SILENCE.addHandler(logging.NullHandler())


class Occupancy:
    """The connections of a server that are no ordinary ones."""

    def __init__(self, *, has_sites: bool) -> None:
        self._has_sites = has_sites
        self._asking: set[Connection] = set()
        self._streaming: set[Connection] = set()

    @property
    def streams(self) -> int:
        """How many streams are open."""
        return len(self._streaming)

    def is_full(self, connections: int) -> bool:
        """Tell whether a server with so many connections takes no other one."""
        most = MAX_CONNECTIONS + (MAX_SITE_CONNECTIONS if self._has_sites else 0)
        return connections - self.streams >= most

    def ask(self, connection: "Connection") -> bool:
        """Note a connection that asks a site for something; tell whether it may."""
        self._asking.add(connection)
        return len(self._asking) <= MAX_SITE_CONNECTIONS

    def stream(self, connection: "Connection") -> bool:
        """Note a connection that begins a stream; tell whether it may."""
        if self.streams >= MAX_STREAMS:
            return False
        self._asking.discard(connection)
        self._streaming.add(connection)
        return True

    def leave(self, connection: "Connection") -> None:
        """Forget a connection that has ended."""
        self._asking.discard(connection)
        self._streaming.discard(connection)


class Connection(web.RequestHandler):
    """A connection with a limited life. Its errors quote nothing of the request."""

    __slots__ = ("_end", "_occupancy", "_on_lost", "_seconds", "_server")

    def __init__(self, server: web.Server, occupancy: Occupancy, seconds: float) -> None:
        super().__init__(
            server,
            loop=asyncio.get_running_loop(),
            logger=SILENCE,  # an entry on a malformed request would quote it
            access_log=None,  # type: ignore[arg-type] # aiohttp's own way to have none
            lingering_time=0,
            max_line_size=MAX_LINE,
            max_field_size=MAX_HEADER,
            max_headers=MAX_HEADERS,
        )
        self._server = server
        self._occupancy = occupancy
        self._seconds = seconds
        self._end: asyncio.TimerHandle | None = None
        self._on_lost: Callable[[], None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin, unless too many are open."""
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - for mypy: a server's kind
        if self._occupancy.is_full(len(self._server.connections)):
            transport.abort()
            return
        # A plain close would wait for a client that does not read.
        self._end = asyncio.get_running_loop().call_later(self._seconds, transport.abort)
        super().connection_made(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Stop the timer."""
        self._stop_timer()
        self._occupancy.leave(self)
        if self._on_lost:
            self._on_lost()
        super().connection_lost(exc)

    def ask(self) -> bool:
        """Belong to a site from now on; tell whether the site has room."""
        return self._occupancy.ask(self)

    def become_stream(self, on_lost: Callable[[], None]) -> bool:
        """Last as long as a stream; tell whether there is room for one more.

        ``on_lost`` is called when the connection is gone: aiohttp would not tell the handler.
        """
        if not self._occupancy.stream(self):
            return False
        self._on_lost = on_lost
        self._stop_timer()
        if self.transport:
            _notice_silence(self.transport.get_extra_info("socket"))
        return True

    def cut(self) -> None:
        """End at once. What the client has not read is lost."""
        if self.transport:
            self.transport.abort()

    def _stop_timer(self) -> None:
        if self._end:
            self._end.cancel()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,  # noqa: ARG002 - the signature is aiohttp's
        message: str | None = None,  # noqa: ARG002 - as above
    ) -> web.StreamResponse:
        """Answer a malformed request. ``message`` quotes it, so it is left out."""
        if request.writer.output_size > 0:
            raise ConnectionError("a part of another answer is sent already")
        return problem_response(status, "This cannot be answered.")


def connection_of(request: web.BaseRequest) -> Connection:
    """Return the connection of a request."""
    connection = request.protocol
    assert isinstance(connection, Connection)  # noqa: S101 - for mypy: the server makes no other
    return connection


def _notice_silence(line: Any) -> None:
    """Let a connection end soon whose client has gone without a word."""
    option = getattr(socket, "TCP_USER_TIMEOUT", None)
    if option is not None:  # Linux has it
        line.setsockopt(socket.IPPROTO_TCP, option, round(SILENT_SECONDS * 1000))
