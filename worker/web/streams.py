"""Server-sent events: a stream for each client, with heartbeats, a bounded buffer and an end.

>>> async def changes(call: Call) -> web.StreamResponse:
...     stream = streams.open(call.request)  # raises ProblemError: 503 if there are too many
...     with hub.joined(stream):  # whatever calls stream.send(event) from now on
...         return await stream.run(call.headers)
"""

import asyncio
from collections.abc import Iterable
from typing import Final

from aiohttp import hdrs, web

from worker.telemetry import metrics
from worker.web.connection import MAX_STREAMS, connection_of
from worker.web.problems import SERVER, ProblemError

HEARTBEAT_SECONDS: Final = 15.0
MAX_BUFFER: Final = 262_144
"""Bytes that wait for a client. One that is further behind is cut off: it may resume."""
WRITE_SECONDS: Final = 30.0
"""How long a client may take to read what is being written."""
RETRY_MILLISECONDS: Final = 2_000
"""When a browser connects again."""
HEARTBEAT: Final = b":\n\n"
BEGINNING: Final = b"retry: %d\n\n" % RETRY_MILLISECONDS
HEADERS: Final = {
    hdrs.CONTENT_TYPE: "text/event-stream",
    hdrs.CACHE_CONTROL: "no-store",
    hdrs.SERVER: SERVER,
    "X-Accel-Buffering": "no",  # nginx would keep events back
}


def event(data: str, *, name: str = "", id: str = "") -> bytes:
    """Return one event as it goes over the wire. ``data`` is one line, such as JSON."""
    lines = []
    if id:
        lines.append(f"id: {id}\n")
    if name:
        lines.append(f"event: {name}\n")
    return "".join((*lines, f"data: {data}\n\n")).encode()


class Streams:
    """The open streams of a server."""

    def __init__(self, heartbeat_seconds: float = HEARTBEAT_SECONDS) -> None:
        self._heartbeat_seconds = heartbeat_seconds
        self._open: set[Stream] = set()
        self._has_ended = False

    def open(self, request: web.BaseRequest) -> "Stream":
        """Begin a stream. It sends nothing before ``run``.

        Raises:
            ProblemError: there are too many, or the worker stops.
        """
        if self._has_ended:
            raise ProblemError(503, "The worker stops.", headers={hdrs.RETRY_AFTER: "2"})
        stream = Stream(self, request, self._heartbeat_seconds)
        if not connection_of(request).become_stream(stream.end):
            raise ProblemError(
                503,
                f"There are {MAX_STREAMS} streams already.",
                headers={hdrs.RETRY_AFTER: "5"},
            )
        return stream

    def add(self, stream: "Stream") -> None:
        """Note a stream that runs."""
        self._open.add(stream)
        metrics.http_streams.set(len(self._open))

    def discard(self, stream: "Stream") -> None:
        """Forget a stream that has ended."""
        self._open.discard(stream)
        metrics.http_streams.set(len(self._open))

    def end(self) -> None:
        """End all streams, and let none begin. Nobody waits for a slow client."""
        self._has_ended = True
        for stream in list(self._open):
            stream.end()


class Stream:
    """The events of one client."""

    def __init__(
        self,
        streams: Streams,
        request: web.BaseRequest,
        heartbeat_seconds: float,
    ) -> None:
        self._streams = streams
        self._request = request
        self._connection = connection_of(request)
        self._heartbeat_seconds = heartbeat_seconds
        self._waiting: list[bytes] = []
        self._size = 0
        self._is_writing = False
        self._has_ended = False
        self._news = asyncio.Event()

    def send(self, event: bytes) -> None:
        """Send an event soon. A client whose buffer is full is cut off."""
        if self._has_ended:
            return
        self._waiting.append(event)
        self._size += len(event)
        self._news.set()
        if self._size > MAX_BUFFER:
            metrics.http_streams_cut.inc()
            self._has_ended = True
            self._connection.cut()

    def end(self) -> None:
        """End after what waits is written; at once if the client does not read."""
        self._has_ended = True
        self._news.set()
        if self._is_writing:
            self._connection.cut()

    async def run(
        self,
        headers: Iterable[tuple[str, str]] = (),
        first: Iterable[bytes] = (),
    ) -> web.StreamResponse:
        """Send what comes until the client leaves, or the stream ends.

        ``headers`` are those of the response besides the usual ones.
        ``first`` goes before all that was sent already, however much it is.
        """
        response = web.StreamResponse(headers=HEADERS)
        response.headers.extend(headers)
        response.force_close()
        self._streams.add(self)
        try:
            await response.prepare(self._request)
            await self._write(response, b"".join((BEGINNING, *first)))
            await self._write_all(response)
        except (ConnectionError, TimeoutError):
            self._connection.cut()  # the client has gone, or does not read
        finally:
            self._has_ended = True
            self._streams.discard(self)
        return response

    async def _write_all(self, response: web.StreamResponse) -> None:
        while self._waiting or not self._has_ended:
            chunk = await self._next()
            await self._write(response, chunk)

    async def _write(self, response: web.StreamResponse, chunk: bytes) -> None:
        self._is_writing = True
        async with asyncio.timeout(WRITE_SECONDS):
            await response.write(chunk)
        self._is_writing = False

    async def _next(self) -> bytes:
        """Return what waits; a heartbeat if nothing comes."""
        try:
            async with asyncio.timeout(self._heartbeat_seconds):
                await self._news.wait()
        except TimeoutError:
            return HEARTBEAT
        self._news.clear()
        chunk = b"".join(self._waiting)
        self._waiting.clear()
        self._size = 0
        return chunk
