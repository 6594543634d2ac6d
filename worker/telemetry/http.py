"""The worker's own pages over HTTP.

GET only, every input bounded, one request a connection.
"""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Final

import structlog
from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from worker.telemetry.health import as_json

MAX_CONNECTIONS: Final = 64
CONNECTION_SECONDS: Final = 30.0
"""The longest life of a connection. A slow request ends with it."""
MAX_LINE: Final = 4_096
MAX_HEADER: Final = 8_192
MAX_HEADERS: Final = 50
SERVER: Final = "tally"
"""The name in the header ``Server``: no versions."""

SILENCE: Final = logging.Logger("http")
SILENCE.addHandler(logging.NullHandler())

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Page:
    """What a request is answered with."""

    status: int
    content_type: str
    body: bytes


Answer = Callable[[], Awaitable[Page]]
"""Returns the page of a path."""


def json_page(document: object, status: int = 200) -> Page:
    """Return a document as one line of JSON in ASCII, which no terminal obeys."""
    return Page(status, "application/json", json.dumps(document).encode() + b"\n")


def health_page(results: Mapping[str, str | None]) -> Page:
    """Return the results of checks as JSON: 200 if all passed, else 503."""
    is_healthy = not any(results.values())
    return json_page(as_json(results), 200 if is_healthy else 503)


def metrics_page() -> Page:
    """Return every metric of this process, in Prometheus' text format."""
    return Page(200, CONTENT_TYPE_LATEST, generate_latest())


@asynccontextmanager
async def listening(
    host: str,
    port: int,
    pages: Mapping[str, Answer],
    connection_seconds: float = CONNECTION_SECONDS,
) -> AsyncIterator[tuple[str, int]]:
    """Serve these pages while this is open; yield the address. Port 0 takes a free port.

    Raises:
        OSError: the address is taken, or is not of this machine.
    """
    server = web.Server(partial(_answer, pages))
    listener = await asyncio.get_running_loop().create_server(
        lambda: _Connection(server, connection_seconds), host, port
    )
    try:
        yield listener.sockets[0].getsockname()[:2]
    finally:
        listener.close()
        await server.shutdown(1.0)


class _Connection(web.RequestHandler):
    """A connection with a limited life. Its errors quote nothing of the request."""

    __slots__ = ("_end", "_seconds", "_server")

    def __init__(self, server: web.Server, seconds: float) -> None:
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
        self._seconds = seconds
        self._end: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin, unless too many are open."""
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - for mypy: a server's kind
        if len(self._server.connections) >= MAX_CONNECTIONS:
            transport.abort()
            return
        # A plain close would wait for a client that does not read.
        self._end = asyncio.get_running_loop().call_later(self._seconds, transport.abort)
        super().connection_made(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Stop the timer."""
        if self._end:
            self._end.cancel()
        super().connection_lost(exc)

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
        return _final(web.Response(status=status, text="This cannot be answered.\n"))


def _final(response: web.Response) -> web.Response:
    response.headers["Cache-Control"] = "no-store"
    response.headers["Server"] = SERVER
    response.force_close()
    return response


async def _answer(pages: Mapping[str, Answer], request: web.BaseRequest) -> web.StreamResponse:
    if request.method != "GET":
        return _final(web.Response(status=405, headers={"Allow": "GET"}, text="GET only\n"))

    answer = pages.get(request.path)
    if answer is None:
        return _final(web.Response(status=404, text=f"There are {', '.join(pages)}.\n"))

    try:
        page = await answer()
    except Exception:
        log.exception("page_failed", path=request.path)
        return _final(web.Response(status=500, text="It failed; the log says why.\n"))

    headers = {"Content-Type": page.content_type}
    return _final(web.Response(status=page.status, body=page.body, headers=headers))
