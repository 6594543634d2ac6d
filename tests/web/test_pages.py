"""The pages: GET only, every input bounded; no answer and no entry quotes a request."""

import asyncio
import json
import re
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, cast

import pytest
import structlog

from tests.source.passing_time import Passes, passing_time
from tests.waiting import wait_until
from worker.telemetry.metrics import event_count
from worker.web import connection
from worker.web.connection import (
    CONNECTION_SECONDS,
    MAX_CONNECTIONS,
    MAX_HEADER,
    MAX_HEADERS,
    MAX_LINE,
)
from worker.web.pages import Answer, Page, json_page, metrics_page
from worker.web.server import listening

HUGE = 20_000_000
ENDLESS = b"x" * HUGE
ANSWER_SECONDS = 60.0
"""How long a slow machine may take over an answer."""
LASTS = 3_000.0
"""How long a connection may last where nothing but the test lets time pass."""


@dataclass
class Response:
    """An answer as it came over the wire."""

    status: int
    headers: dict[str, str]
    body: bytes


@dataclass
class Port:
    """The pages at an address, and the log meanwhile."""

    host: str
    number: int
    entries: list[dict[str, object]] = field(default_factory=list)

    async def open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect."""
        return await asyncio.open_connection(self.host, self.number)

    async def send(self, *parts: bytes) -> bytes:
        """Send bytes and return everything that is answered until the connection is closed."""
        reader, writer = await self.open()
        async with asyncio.timeout(ANSWER_SECONDS):
            with suppress(ConnectionError):
                for part in parts:
                    writer.write(part)
                    await writer.drain()
            response = b""
            with suppress(ConnectionError):
                while chunk := await reader.read(65536):
                    response += chunk
        writer.transport.abort()
        return response

    async def ask(
        self, target: str = "/good", method: str = "GET", *headers: str, body: bytes = b""
    ) -> Response:
        """Send one request, well-formed, and return its answer."""
        lines = [f"{method} {target} HTTP/1.1", "Host: x", *headers, "", ""]
        return read(await self.send("\r\n".join(lines).encode("latin-1") + body))


def read(response: bytes) -> Response:
    """Take an answer apart. Whatever it is, it names no software and no version."""
    head, _, body = response.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    assert headers["server"] == "tally"
    assert not re.search(rb"aiohttp|python/", body, re.IGNORECASE)
    return Response(int(first.split()[1]), headers, body)


async def good() -> Page:
    """Answer well."""
    return json_page({"ok": True, "channels": ["a\n\x1b[31m", "\u202e"]})


async def huge() -> Page:
    """Answer more than any buffer takes."""
    return Page(200, "text/plain", ENDLESS)


async def broken() -> Page:
    """Fail."""
    raise ValueError("canary")


async def metrics() -> Page:
    """Answer every metric."""
    return metrics_page()


PAGES: dict[str, Answer] = {"/good": good, "/huge": huge, "/broken": broken, "/metrics": metrics}


@asynccontextmanager
async def served(seconds: float = CONNECTION_SECONDS) -> AsyncIterator[Port]:
    """Listen on loopback. No request leads to an entry, except one of the page that fails."""
    with structlog.testing.capture_logs() as entries:
        async with listening("127.0.0.1", 0, PAGES, seconds) as (host, number):
            yield Port(host, number, entries)  # type: ignore[arg-type] # entries are dicts
    assert [entry for entry in entries if entry.get("path") != "/broken"] == []


@pytest.fixture
async def port() -> AsyncIterator[Port]:
    """Listen for as long as a connection lasts in earnest."""
    async with served() as port:
        yield port


@pytest.fixture
async def lasting() -> AsyncIterator[Port]:
    """Listen for longer than any test lasts."""
    async with served(LASTS) as port:
        yield port


@pytest.fixture
async def passes(monkeypatch: pytest.MonkeyPatch) -> Passes:
    """Return how to let time pass."""
    return passing_time(monkeypatch)


async def test_a_page_is_one_line_of_ascii(port: Port) -> None:
    """It is printable JSON, and no cache keeps it."""
    response = await port.ask()

    assert response.status == 200
    assert json.loads(response.body)["ok"]
    assert response.body.isascii()
    assert response.body.count(b"\n") == 1
    assert b"\x1b" not in response.body
    assert response.headers["cache-control"] == "no-store"
    assert response.headers["connection"] == "close"


async def test_metrics_are_prometheus_text(port: Port) -> None:
    """With the content type that Prometheus asks for."""
    event_count("live", "applied")
    response = await port.ask("/metrics")

    assert response.headers["content-type"].startswith("text/plain; version=")
    assert b"# TYPE tally_events_total counter" in response.body


@pytest.mark.parametrize(
    "method",
    ["HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PROPFIND", "GETT", "get"],
)
async def test_other_methods_than_get_are_refused(port: Port, method: str) -> None:
    """The answer names the one that is allowed."""
    response = await port.ask("/good", method, "Content-Length: 6", body=b"canary")

    assert response.status in {405, 400}
    assert b"canary" not in response.body
    assert response.status == 400 or response.headers["allow"] == "GET"
    assert method not in {"HEAD", "POST", "PUT", "DELETE"} or response.status == 405


async def test_no_request_opens_a_tunnel(port: Port) -> None:
    """Neither CONNECT nor an upgrade to another protocol."""
    tunnel = await port.ask("canary:443", "CONNECT")
    websocket = await port.ask("/good", "GET", "Connection: upgrade", "Upgrade: websocket")
    http2 = await port.ask("/good", "GET", "Connection: upgrade, http2-settings", "Upgrade: h2c")

    assert tunnel.status in {400, 405}
    assert (websocket.status, http2.status) == (200, 200)


@pytest.mark.parametrize(
    "sent",
    [
        b"canary\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03canary\r\n\r\n",  # TLS
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET /good HTTP/9.9\r\n\r\n",
        b"GET  /good  HTTP/1.1\r\ncanary\r\n\r\n",
        b"GET /good HTTP/1.1\r\nHost: x\r\n canary: folded\r\n\x00: y\r\n\r\n",
        b"GET /good HTTP/1.1\r\nHost: x\r\ncan\x1bary: y\r\n\r\n",
        b"GET /good HTTP/1.1\r\nHost: x\r\nContent-Length: canary\r\n\r\n",
        b"GET /good HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"GET /good HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"GET /good HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n",
        b"GET /\x1b[31mcanary HTTP/1.1\r\nHost: x\r\n\r\n",
        b"*1\r\n$4\r\nPING\r\n\r\n",  # Redis
        b"\x00" * 100 + b"\r\n\r\n",
    ],
)
async def test_garbage_is_never_quoted(port: Port, sent: bytes) -> None:
    """The answer is a 400 or a closed connection, and the log stays empty."""
    response = await port.send(sent)

    assert not response or read(response).status in {400, 404, 405, 505}
    assert b"canary" not in response
    assert b"\x1b" not in response
    assert (await port.ask()).status == 200


@pytest.mark.parametrize(
    "parts",
    [
        (b"GET /" + b"x" * (MAX_LINE + 1) + b" HTTP/1.1\r\nHost: x\r\n\r\n",),
        (b"GET /good?" + b"x" * HUGE,),
        (b"G" * HUGE,),
        (b"GET /good HTTP/1.1\r\nHost: x\r\nA: " + b"x" * (MAX_HEADER + 1) + b"\r\n\r\n",),
        (b"GET /good HTTP/1.1\r\nHost: x\r\nA: ", b"x" * HUGE),
        (b"GET /good HTTP/1.1\r\nHost: x\r\n", b"x" * HUGE),
        (b"GET /good HTTP/1.1\r\nHost: x\r\n" + b"A: b\r\n" * (MAX_HEADERS + 1) + b"\r\n",),
        (b"GET /good HTTP/1.1\r\nHost: x\r\n", b"A: b\r\n" * 1_000_000),
    ],
    ids=str.split("line query method header endless-header name headers endless-headers"),
)
async def test_a_long_request_is_refused(port: Port, parts: tuple[bytes, ...]) -> None:
    """With a 4xx or a closed connection, before its end."""
    response = await port.send(*parts)

    assert not response or 400 <= read(response).status < 500
    assert (await port.ask()).status == 200


async def test_a_request_with_a_body_is_answered_at_once(port: Port) -> None:
    """Its body may be endless; the connection is closed."""
    response = await port.ask("/good", "GET", "Content-Length: 1000000000000")
    chunked = await port.ask("/good", "GET", "Transfer-Encoding: chunked", body=b"5\r\nhello\r\n")
    await port.send(
        b"POST /good HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\n", b"x" * HUGE
    )

    assert response.status == chunked.status == 200
    assert (await port.ask()).status == 200


SAME_PAGE = ("/good?x=canary&y", "/%67ood", "http://elsewhere/good")
NO_PAGE = (
    *("/", "*", "//good", "/good/", "/good/../../etc/canary", "/../good", "/%2e%2e/canary"),
    *("/good%00", "/good%0a", "/%1b[31mcanary", "/%ff%fe", "/GOOD", "/canary", "http://[canary"),
)


@pytest.mark.parametrize("target", [*SAME_PAGE, *NO_PAGE])
async def test_only_known_paths_have_a_page(port: Port, target: str) -> None:
    """A query changes nothing, and no answer quotes the path."""
    response = await port.ask(target)

    assert response.status in ({200} if target in SAME_PAGE else {400, 404})
    assert b"canary" not in response.body


async def test_one_request_a_connection(port: Port) -> None:
    """The first of several is answered, and the connection closed."""
    request = b"GET /good HTTP/1.1\r\nHost: x\r\n\r\n"

    response = await port.send(request * 1_000)

    assert response.count(b"HTTP/1.1") == 1
    assert read(response).status == 200


async def test_a_failed_page_quotes_no_error(port: Port) -> None:
    """The answer is 500. The log has the error and the path."""
    response = await port.ask("/broken")

    assert response.status == 500
    assert b"canary" not in response.body
    (entry,) = port.entries
    assert {
        "event": "page_failed",
        "path": "/broken",
        "log_level": "error",
    }.items() <= entry.items()


@pytest.mark.parametrize(
    ("begins", "goes_on"),
    [(b"", b""), (b"GET /", b"x"), (b"GET /good HTTP/1.1\r\nHost: x\r\nA: ", b"x")],
    ids=["silent", "a path", "a header"],
)
async def test_a_slow_request_is_cut_off(
    lasting: Port, passes: Passes, begins: bytes, goes_on: bytes
) -> None:
    """A byte now and then does not prolong the life of a connection."""
    reader, writer = await lasting.open()
    writer.write(begins)
    reading = asyncio.create_task(until_closed(reader))
    for _ in range(9):
        passes(LASTS / 10)
        writer.write(goes_on)
        assert (await lasting.ask()).status == 200
        assert not reading.done()

    passes(LASTS / 10)

    async with asyncio.timeout(ANSWER_SECONDS):
        assert await reading == 0
    writer.transport.abort()
    assert (await lasting.ask()).status == 200


async def until_closed(reader: asyncio.StreamReader) -> int:
    """Read until the other side ends; return how much came."""
    size = 0
    with suppress(ConnectionError):
        while chunk := await reader.read(65536):
            size += len(chunk)
    return size


async def test_a_client_that_does_not_read_is_cut_off(
    port: Port, passes: Passes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then another client gets its place."""
    monkeypatch.setattr(connection, "MAX_CONNECTIONS", 3)
    clients = [await port.open() for _ in range(3)]
    for _, writer in clients:
        cast("asyncio.Transport", writer.transport).pause_reading()
        writer.write(b"GET /huge HTTP/1.1\r\nHost: x\r\n\r\n")

    async def is_answered() -> bool:
        return (await port.send(b"GET /good HTTP/1.1\r\nHost: x\r\n\r\n")).startswith(
            b"HTTP/1.1 200"
        )

    assert not await is_answered()
    passes(CONNECTION_SECONDS)
    await wait_until(is_answered, ANSWER_SECONDS)
    for reader, writer in clients:
        cast("asyncio.Transport", writer.transport).resume_reading()
        async with asyncio.timeout(ANSWER_SECONDS):
            assert await until_closed(reader) < HUGE
        writer.transport.abort()


async def test_connections_beyond_the_limit_are_closed(port: Port) -> None:
    """At once, also of a hundred that come together. The others are served."""
    clients: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
    for _ in range(2):  # more together would wait a second before the system lets them in
        clients += await asyncio.gather(*(port.open() for _ in range(MAX_CONNECTIONS * 3 // 2)))
    closing = [asyncio.create_task(until_closed(reader)) for reader, _ in clients]
    await wait_until(
        lambda: sum(task.done() for task in closing) == MAX_CONNECTIONS * 2, ANSWER_SECONDS
    )
    held = [client for client, task in zip(clients, closing, strict=True) if not task.done()]
    assert await port.send(b"GET /good HTTP/1.1\r\nHost: x\r\n\r\n") == b""

    for _, writer in held:
        writer.write(b"GET /good HTTP/1.1\r\nHost: x\r\n\r\n")
    async with asyncio.timeout(ANSWER_SECONDS):
        assert all(await asyncio.gather(*(task for task in closing if not task.done())))
    for _, writer in clients:
        writer.transport.abort()
    assert (await port.ask()).status == 200


async def test_a_closed_connection_leaves_no_timer(
    port: Port, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Connections one after the other must not pile up timers."""
    loop = asyncio.get_running_loop()
    call_later, ends = loop.call_later, list[asyncio.TimerHandle]()

    def noted(delay: float, *call: Any, **context: Any) -> asyncio.TimerHandle:
        handle = call_later(delay, *call, **context)
        if delay == CONNECTION_SECONDS:
            ends.append(handle)
        return handle

    monkeypatch.setattr(loop, "call_later", noted)
    for _ in range(20):
        assert (await port.ask()).status == 200

    assert len(ends) == 20
    await wait_until(lambda: all(end.cancelled() for end in ends), ANSWER_SECONDS)


async def test_a_stop_closes_open_connections(passes: Passes) -> None:
    """It waits neither for a silent client nor for a page that never comes."""
    forever = asyncio.Event()

    async def never() -> Page:
        await forever.wait()
        raise AssertionError("unreachable")

    async with AsyncExitStack() as stack:
        host, number = await stack.enter_async_context(listening("127.0.0.1", 0, {"/never": never}))
        silent, asking = await Port(host, number).open(), await Port(host, number).open()
        asking[1].write(b"GET /never HTTP/1.1\r\nHost: x\r\n\r\n")
        ending = asyncio.gather(stack.aclose(), until_closed(silent[0]), until_closed(asking[0]))
        while not ending.done():
            passes(0.1)  # of the second that an answer under way is given
            await asyncio.wait([ending], timeout=0.01)
        await ending
        for _, writer in (silent, asking):
            writer.transport.abort()


async def test_only_the_given_address_is_served(port: Port) -> None:
    """A port that is taken is an error."""
    with pytest.raises(OSError, match=r"address already in use|in use"):
        async with listening(port.host, port.number, PAGES):
            raise AssertionError("two at one port")
    with pytest.raises(OSError):  # noqa: PT011 - it depends on the system how it refuses
        await asyncio.open_connection("127.0.0.2", port.number)


def has_ipv6() -> bool:
    """Tell whether this machine has the loopback of IPv6."""
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


@pytest.mark.skipif(not has_ipv6(), reason="no IPv6 loopback here: that the pages are served there")
async def test_ipv6_is_served() -> None:
    """Like any other address."""
    async with listening("::1", 0, PAGES) as (host, number):
        assert (await Port(host, number).ask()).status == 200
