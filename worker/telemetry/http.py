"""The worker's own pages over HTTP: GET only, every input bounded, one request a connection."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

import structlog
from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

MAX_CONNECTIONS: Final = 64
CONNECTION_SECONDS: Final = 30.0
"""How long a connection may last, whatever is done with it: nobody holds one by asking slowly."""
MAX_LINE: Final = 4_096
MAX_HEADER: Final = 8_192
MAX_HEADERS: Final = 50
SERVER: Final = "tally"
"""What the pages tell of who serves them: no versions."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Page:
    """An answer."""

    status: int
    content_type: str
    body: bytes


Answer = Callable[[], Awaitable[Page]]


def json_page(document: object, status: int = 200) -> Page:
    """Return a document as JSON, in ASCII: what strangers have named stays one line and obeys nobody."""
    return Page(status, "application/json", json.dumps(document).encode() + b"\n")


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
    """Answer for as long as this is open; yield the address, for port 0 takes a free one.

    Raises:
        OSError: nobody can listen there.
    """
    server = web.Server(lambda request: _answer(request, pages))
    listener = await asyncio.get_running_loop().create_server(
        lambda: _Connection(server, connection_seconds), host, port
    )
    try:
        yield listener.sockets[0].getsockname()[:2]
    finally:
        listener.close()
        await server.shutdown(1.0)


class _Connection(web.RequestHandler):
    """One of a few connections, for a while; it answers in our words what nobody can understand."""

    __slots__ = ("_end", "_seconds", "_server")

    def __init__(self, server: web.Server, seconds: float) -> None:
        super().__init__(
            server,
            loop=asyncio.get_running_loop(),
            logger=_silent(),  # what it would say of malformed requests is strangers' text
            access_log=None,  # type: ignore[arg-type] # its own way to say: none
            lingering_time=0,
            max_line_size=MAX_LINE,
            max_field_size=MAX_HEADER,
            max_headers=MAX_HEADERS,
        )
        self._server = server
        self._seconds = seconds
        self._end: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin, unless it is one too many."""
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - for mypy: what a server makes
        if len(self._server.connections) >= MAX_CONNECTIONS:
            transport.abort()
            return
        # Not just closed: that would wait for a client that does not read.
        self._end = asyncio.get_running_loop().call_later(self._seconds, transport.abort)
        super().connection_made(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        """End."""
        if self._end:
            self._end.cancel()
        super().connection_lost(exc)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,  # noqa: ARG002 - the signature is aiohttp's
        message: str | None = None,  # noqa: ARG002 - as above; it quotes the request
    ) -> web.StreamResponse:
        """Answer what is no request, or failed in a way nobody foresaw."""
        if request.writer.output_size > 0:
            raise ConnectionError("half an answer is sent; another cannot follow")
        return _dressed(web.Response(status=status, text="This cannot be answered.\n"))


async def _answer(request: web.BaseRequest, pages: Mapping[str, Answer]) -> web.StreamResponse:
    return _dressed(await _respond(request, pages))


def _dressed(response: web.Response) -> web.Response:
    response.headers["Cache-Control"] = "no-store"
    response.headers["Server"] = SERVER
    response.force_close()
    return response


async def _respond(request: web.BaseRequest, pages: Mapping[str, Answer]) -> web.Response:
    if request.method != "GET":
        return web.Response(status=405, headers={"Allow": "GET"}, text="GET only\n")
    answer = pages.get(request.path)
    if answer is None:
        return web.Response(status=404, text=f"There are {', '.join(pages)}.\n")
    try:
        page = await answer()
    except Exception:
        log.exception("page_failed", path=request.path)
        return web.Response(status=500, text="It failed; the log says why.\n")
    return web.Response(
        status=page.status, body=page.body, headers={"Content-Type": page.content_type}
    )


def _silent() -> logging.Logger:
    logger = logging.Logger("http")
    logger.addHandler(logging.NullHandler())
    return logger
