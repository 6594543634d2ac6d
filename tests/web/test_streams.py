"""Streams of server-sent events: heartbeats, bounded numbers, slow clients, and an end."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from typing import cast

import pytest
from aiohttp import web

from tests.waiting import wait_until
from worker.web import connection, streams
from worker.web import server as server_module
from worker.web.access import Access
from worker.web.pages import Page, json_page
from worker.web.server import listening
from worker.web.site import Call, Site
from worker.web.streams import Stream, Streams, event

SECONDS = 60.0


@dataclass
class Hub:
    """Sends to every stream."""

    joined: list[Stream] = field(default_factory=list)
    first: list[bytes] = field(default_factory=list)
    """What a stream begins with."""

    @contextmanager
    def open(self, stream: Stream) -> Iterator[None]:
        """Let a stream get what is sent."""
        self.joined.append(stream)
        try:
            yield
        finally:
            self.joined.remove(stream)

    def send(self, item: bytes) -> None:
        """Send an event to all."""
        for stream in list(self.joined):
            stream.send(item)


@dataclass
class Served:
    """A server with one stream for each who asks for it."""

    host: str
    port: int
    hub: Hub
    streams: Streams

    async def ask(self, path: str = "/v1/events") -> "Client":
        """Ask for a path; return the connection."""
        reader, writer = await asyncio.open_connection(self.host, self.port)
        writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        return Client(reader, writer)


@dataclass
class Client:
    """One connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def until(self, end: bytes) -> bytes:
        """Read up to something."""
        async with asyncio.timeout(SECONDS):
            return await self.reader.readuntil(end)

    async def rest(self) -> bytes:
        """Read to the end."""
        received = b""
        async with asyncio.timeout(SECONDS):
            with suppress(ConnectionError):
                while chunk := await self.reader.read(65_536):
                    received += chunk
        self.leave()
        return received

    def leave(self) -> None:
        """Close the connection."""
        self.writer.transport.abort()


async def ready() -> Page:
    """Answer a probe."""
    return json_page({"ok": True})


@asynccontextmanager
async def served(heartbeat_seconds: float = SECONDS) -> AsyncIterator[Served]:
    """Serve a stream, and a page for probes."""
    hub, open_streams = Hub(), Streams(heartbeat_seconds)

    async def follow(call: Call) -> web.StreamResponse:
        stream = open_streams.open(call.request)
        with hub.open(stream):
            return await stream.run(call.headers, hub.first)

    site = Site("/v1", {"/v1/events": follow}, Access(None))
    pages = {"/readyz": ready}
    async with listening("127.0.0.1", 0, pages, sites=[site], streams=open_streams) as (host, port):
        yield Served(host, port, hub, open_streams)


async def test_a_stream_carries_events() -> None:
    """In their order, with name and id, and proxies keep nothing back."""
    async with served() as server:
        client = await server.ask()
        head = await client.until(b"\r\n\r\n")
        await client.until(b"retry: 2000\n\n")
        server.hub.send(event("1", name="change", id="7"))
        server.hub.send(event("2"))

        assert b"200 OK" in head
        assert b"Content-Type: text/event-stream" in head
        assert b"X-Accel-Buffering: no" in head
        assert b"Server: tally\r\n" in head
        assert b"id: 7\nevent: change\ndata: 1\n\n" in await client.until(b"data: 1\n\n")
        await client.until(b"data: 2\n\n")
        client.leave()
        await wait_until(lambda: not server.hub.joined, SECONDS)


async def test_an_idle_stream_has_heartbeats() -> None:
    """So that proxies keep it open, and a client that has gone is noticed."""
    async with served(heartbeat_seconds=0.01) as server:
        client = await server.ask()
        await client.until(b"\n:\n\n")
        await client.until(b"\n:\n\n")
        client.leave()
        await wait_until(lambda: not server.hub.joined, SECONDS)


async def test_streams_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """One more gets a 503 with a reason. A probe is answered all the same."""
    monkeypatch.setattr(connection, "MAX_STREAMS", 3)
    monkeypatch.setattr(connection, "MAX_SITE_CONNECTIONS", 2)
    monkeypatch.setattr(connection, "MAX_CONNECTIONS", 1)
    async with served() as server:
        clients = [await server.ask() for _ in range(3)]
        for client in clients:
            await client.until(b"retry: 2000\n\n")

        refused = await (await server.ask()).rest()
        probe = await (await server.ask("/readyz")).rest()
        clients[0].leave()
        await wait_until(lambda: len(server.hub.joined) == 2, SECONDS)
        next_client = await server.ask()

        head, _, body = refused.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 503")
        assert b"application/problem+json" in head
        assert b"Retry-After: 5" in head
        assert "streams already" in json.loads(body)["detail"]
        assert probe.startswith(b"HTTP/1.1 200")
        await next_client.until(b"retry: 2000\n\n")
        for client in (*clients, next_client):
            client.leave()


async def test_a_client_that_does_not_read_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once its buffer is full. The others get everything."""
    monkeypatch.setattr(streams, "MAX_BUFFER", 100_000)
    big = event("x" * 50_000)
    async with served() as server:
        slow, good = await server.ask(), await server.ask()
        for client in (slow, good):
            await client.until(b"retry: 2000\n\n")
        cast("asyncio.Transport", slow.writer.transport).pause_reading()

        sent = 0
        while len(server.hub.joined) == 2:
            server.hub.send(big)
            sent += 1
            await good.until(b"x\n\n")

        cast("asyncio.Transport", slow.writer.transport).resume_reading()
        assert len(await slow.rest()) < sent * len(big)
        for client in (slow, good):
            client.leave()


async def test_a_client_that_never_reads_its_beginning_is_cut_off(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It would keep a place for ever, where nothing else is sent to it."""
    monkeypatch.setattr(streams, "WRITE_SECONDS", 0.05)
    async with served() as server:
        server.hub.first = [event("x" * 10_000_000)]
        client = await server.ask()
        cast("asyncio.Transport", client.writer.transport).pause_reading()
        await wait_until(lambda: server.hub.joined, SECONDS)
        await wait_until(lambda: not server.hub.joined, SECONDS)

        cast("asyncio.Transport", client.writer.transport).resume_reading()
        assert len(await client.rest()) < 10_000_000


async def test_a_stop_ends_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    """After what was sent, and without the time that other answers are given."""
    monkeypatch.setattr(server_module, "STOP_SECONDS", 10 * SECONDS)
    async with served() as server:
        client, stuck = await server.ask(), await server.ask()
        await client.until(b"retry: 2000\n\n")
        await stuck.until(b"retry: 2000\n\n")
        cast("asyncio.Transport", stuck.writer.transport).pause_reading()
        server.hub.send(event("y" * 200_000))
        server.hub.send(event("last"))
        reading = asyncio.create_task(client.rest())
        await asyncio.sleep(0)

    assert b"data: last\n\n" in await reading
    for one in (client, stuck):
        one.leave()


async def test_no_stream_begins_during_a_stop() -> None:
    """It gets a 503, and comes again."""
    async with served() as server:
        server.streams.end()
        answer = await (await server.ask()).rest()

    assert answer.startswith(b"HTTP/1.1 503")
    assert b"Retry-After: 2" in answer
