"""The worker's own pages over HTTP, and the sites beside them.

GET only, every input bounded, one request a connection.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Final

import structlog
from aiohttp import web

from worker.web.connection import CONNECTION_SECONDS, Connection, Occupancy
from worker.web.pages import Answer
from worker.web.problems import final
from worker.web.site import Site
from worker.web.streams import Streams

STOP_SECONDS: Final = 1.0
"""How long an answer under way may take at a stop."""

log = structlog.get_logger(__name__)


class Service:
    """Answers requests: the pages by their paths, the rest by the site of the prefix."""

    def __init__(self, pages: Mapping[str, Answer], sites: Sequence[Site]) -> None:
        self._pages = pages
        self._sites = sites

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        """Return the response to a request."""
        path = request.rel_url.raw_path
        for site in self._sites:
            if site.has(path):
                return await site.answer(request)
        return await self._answer_page(request)

    async def _answer_page(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.method != "GET":
            return final(web.Response(status=405, headers={"Allow": "GET"}, text="GET only\n"))

        answer = self._pages.get(request.path)
        if answer is None:
            known = (*self._pages, *(f"{site.prefix}/" for site in self._sites))
            return final(web.Response(status=404, text=f"There are {', '.join(known)}.\n"))

        try:
            page = await answer()
        except Exception:
            log.exception("page_failed", path=request.path)
            return final(web.Response(status=500, text="It failed; the log says why.\n"))

        headers = {"Content-Type": page.content_type}
        return final(web.Response(status=page.status, body=page.body, headers=headers))


@asynccontextmanager
async def listening(
    host: str,
    port: int,
    pages: Mapping[str, Answer],
    connection_seconds: float = CONNECTION_SECONDS,
    *,
    sites: Sequence[Site] = (),
    streams: Streams | None = None,
) -> AsyncIterator[tuple[str, int]]:
    """Serve pages and sites while this is open; yield the address. Port 0 takes a free port.

    ``streams`` are those of the sites: they end first.

    Raises:
        OSError: the address is taken, or is not of this machine.
    """
    server = web.Server(Service(pages, sites).answer)
    occupancy = Occupancy(has_sites=bool(sites))
    listener = await asyncio.get_running_loop().create_server(
        lambda: Connection(server, occupancy, connection_seconds), host, port
    )
    try:
        yield listener.sockets[0].getsockname()[:2]
    finally:
        listener.close()
        if streams:
            streams.end()
        await server.shutdown(STOP_SECONDS)
