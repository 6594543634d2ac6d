"""The API at an address: requests as they go over the wire, and streams."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlencode

from redis.asyncio import Redis

from reaction_tally import Change, Reset
from tests.waiting import WAIT_SECONDS
from worker.api.site import opened_api
from worker.store.connection import reading_client
from worker.web.access import Access
from worker.web.pages import Page, json_page
from worker.web.server import listening
from worker.web.streams import Streams

Query = Mapping[str, Any] | list[tuple[str, str]]


@dataclass(frozen=True)
class Response:
    """An answer as it came over the wire."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)

    @property
    def problem(self) -> tuple[int, str | None]:
        """The status, and the parameter that is wrong."""
        assert self.headers["content-type"].startswith("application/problem+json")
        assert self.json["status"] == self.status
        return self.status, self.json.get("parameter")


@dataclass
class Events:
    """A stream of events, as a browser would see it."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    head: str = ""
    last_id: str = ""
    received: list[tuple[str, Any]] = field(default_factory=list)

    async def begun(self) -> "Events":
        """Return once the stream has begun, with an id."""
        self.head = (await self._until(b"\r\n\r\n")).decode()
        assert self.head.startswith("HTTP/1.1 200"), self.head
        while not self.last_id:
            await self._block()
        return self

    async def next(self) -> tuple[str, Any]:
        """Return name and data of the next event."""
        while not self.received:
            await self._block()
        return self.received.pop(0)

    async def next_item(self) -> Change | Reset:
        """Return the next event as the client's reader would."""
        name, data = await self.next()
        if name == "reset":
            return Reset(data["channel"], data["position"])
        return Change(
            channel=data["channel"],
            message_timetoken=data["message"],
            type=data["type"] or "",
            value=data["value"] or "",
            count=data["count"],
            position=data["position"],
        )

    async def _block(self) -> None:
        # aiohttp sends a stream in chunks; their sizes stand in lines of their own.
        block = (await self._until(b"\n\n")).decode()
        fields: dict[str, str] = {}
        for line in block.replace("\r\n", "\n").split("\n"):
            name, separator, value = line.partition(": ")
            if separator and name in {"id", "event", "data"}:
                fields[name] = value
        self.last_id = fields.get("id", self.last_id)
        if "data" in fields:
            self.received.append((fields["event"], json.loads(fields["data"])))

    async def ended(self) -> bool:
        """Wait until the stream has ended; tell whether it was not cut."""
        received = b""
        async with asyncio.timeout(WAIT_SECONDS):
            with suppress(ConnectionError):
                while chunk := await self.reader.read(65_536):
                    received += chunk
        self.leave()
        return received.endswith(b"0\r\n\r\n")

    def leave(self) -> None:
        """Close the connection."""
        self.writer.transport.abort()

    async def _until(self, end: bytes) -> bytes:
        async with asyncio.timeout(WAIT_SECONDS):
            return await self.reader.readuntil(end)


@dataclass(frozen=True)
class Served:
    """The API at an address."""

    host: str
    port: int
    token: str | None = None

    async def get(
        self,
        target: str,
        query: Query | None = None,
        *,
        method: str = "GET",
        headers: Mapping[str, str] | None = None,
    ) -> Response:
        """Send a request; return its answer."""
        reader, writer = await self._ask(target, query, method, headers or {})
        received = b""
        async with asyncio.timeout(WAIT_SECONDS):
            with suppress(ConnectionError):
                while chunk := await reader.read(65_536):
                    received += chunk
        writer.transport.abort()
        head, _, body = received.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        pairs = (line.partition(": ") for line in lines)
        named = {name.lower(): value for name, _, value in pairs}
        return Response(int(first.split()[1]), named, body)

    async def follow(self, *channels: str, last_id: str = "", since: str = "") -> Events:
        """Follow channels, or all; return the stream once it has begun."""
        headers = {"Last-Event-ID": last_id} if last_id else {}
        query = [("channel", channel) for channel in channels]
        if since:
            query.append(("since", since))
        return await Events(*await self._ask("/v1/changes", query, "GET", headers)).begun()

    async def _ask(
        self,
        target: str,
        query: Query | None,
        method: str,
        headers: Mapping[str, str],
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        async with asyncio.timeout(WAIT_SECONDS):
            reader, writer = await asyncio.open_connection(self.host, self.port, limit=1_000_000)
        text = urlencode(query, doseq=True, quote_via=quote) if query else ""
        whole = f"{target}?{text}" if text else target
        sent = {"Host": f"localhost:{self.port}"}
        if self.token:
            sent["Authorization"] = f"Bearer {self.token}"
        lines = [f"{name}: {value}" for name, value in (sent | dict(headers)).items()]
        request = "\r\n".join([f"{method} {whole} HTTP/1.1", *lines, "", ""])
        writer.write(request.encode("latin-1"))
        return reader, writer


async def healthy() -> Page:
    """Answer a probe."""
    return json_page({"ok": True})


@asynccontextmanager
async def served(
    redis: Redis,
    token: str | None = None,
    origins: tuple[str, ...] = (),
    heartbeat_seconds: float = 15.0,
) -> AsyncIterator[Served]:
    """Serve the API on loopback."""
    streams = Streams(heartbeat_seconds)
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(reading_client(redis, 8))
        site = await stack.enter_async_context(
            opened_api(client, "tally", streams, Access(token), origins)
        )
        host, port = await stack.enter_async_context(
            listening("127.0.0.1", 0, {"/readyz": healthy}, sites=[site], streams=streams)
        )
        yield Served(host, port, token)
