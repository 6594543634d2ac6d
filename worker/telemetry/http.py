"""The worker's own pages over HTTP: GET only, every input bounded, one request a connection."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

import structlog
from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

MAX_CONNECTIONS: Final = 64
CONNECTION_SECONDS: Final = 30.0
"""How long a connection may last, whatever is done with it: nobody holds one by asking slowly."""
MAX_LINE: Final = 4_096
MAX_HEADER: Final = 8_192

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
async def listening(host: str, port: int, pages: Mapping[str, Answer]) -> AsyncIterator[tuple[str, int]]:
    """Answer for as long as this is open; yield the address, for port 0 takes a free one.

    Raises:
        OSError: nobody can listen there.
    """
    server = web.Server(
        lambda request: _answer(request, pages),
        # What it would say of malformed requests is strangers' text.
        logger=_silent(),
        access_log=None,
        lingering_time=0,
        max_line_size=MAX_LINE,
        max_field_size=MAX_HEADER,
    )
    loop = asyncio.get_running_loop()

    def accept() -> asyncio.Protocol:
        if len(server.connections) >= MAX_CONNECTIONS:
            return _Full()
        connection = server()
        loop.call_later(CONNECTION_SECONDS, _cut, connection)
        return connection

    listener = await loop.create_server(accept, host, port)
    try:
        yield listener.sockets[0].getsockname()[:2]
    finally:
        listener.close()
        await server.shutdown(1.0)


async def _answer(request: web.BaseRequest, pages: Mapping[str, Answer]) -> web.StreamResponse:
    response = await _respond(request, pages)
    response.headers["Cache-Control"] = "no-store"
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
    return web.Response(status=page.status, body=page.body, headers={"Content-Type": page.content_type})


def _cut(connection: Any) -> None:
    if connection.transport:
        connection.transport.abort()


class _Full(asyncio.Protocol):
    """Takes a connection that is one too many, and ends it."""

    def connection_made(self, transport: Any) -> None:
        """End it."""
        transport.close()


def _silent() -> logging.Logger:
    logger = logging.Logger("http")
    logger.addHandler(logging.NullHandler())
    return logger
