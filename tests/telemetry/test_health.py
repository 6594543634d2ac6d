"""Health as named checks, and asking a worker for it."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest

from tests.redis_server import free_port
from worker.telemetry import health
from worker.telemetry.health import examine
from worker.telemetry.health_request import request_health
from worker.web.pages import Answer, Page, health_page
from worker.web.server import listening


async def well() -> str | None:
    """Find nothing wrong."""
    return None


async def ill() -> str | None:
    """Find something wrong, in text that others wrote."""
    return "a\n\x1b[31m"


async def stuck() -> str | None:
    """Never find anything."""
    await asyncio.Event().wait()
    return None


async def test_each_check_has_its_name() -> None:
    """200 if all pass, else 503 with the reasons, in one printable line."""
    fine = health_page(await examine({"a": well, "b": well}))
    not_fine = health_page(await examine({"a": well, "b": ill}))

    assert fine.status == 200
    assert json.loads(fine.body) == {"ok": True, "checks": {"a": {"ok": True}, "b": {"ok": True}}}
    assert not_fine.status == 503
    assert json.loads(not_fine.body) == {
        "ok": False,
        "checks": {"a": {"ok": True}, "b": {"ok": False, "reason": "a\n\x1b[31m"}},
    }
    assert not_fine.body.count(b"\n") == 1
    assert b"\x1b" not in not_fine.body


async def test_a_stuck_check_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """After two seconds, and the others are not held up."""
    monkeypatch.setattr(health, "CHECK_SECONDS", 0.01)
    found = await examine({"a": well, "b": stuck, "c": stuck})

    assert found == {"a": None, "b": "no answer in 0.01 s", "c": "no answer in 0.01 s"}


async def test_all_checks_run_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Here each waits for the other."""
    monkeypatch.setattr(health, "CHECK_SECONDS", 60)
    asked = {"a": asyncio.Event(), "b": asyncio.Event()}

    async def meet(me: str, other: str) -> str | None:
        asked[me].set()
        await asked[other].wait()
        return None

    assert await examine({"a": lambda: meet("a", "b"), "b": lambda: meet("b", "a")}) == {
        "a": None,
        "b": None,
    }


@pytest.mark.usefixtures("patient")
async def test_a_request_for_health_names_each_failed_check() -> None:
    """And nothing if the worker is healthy."""
    pages: dict[str, Answer] = {
        "/readyz": lambda: found(ill=True),
        "/livez": lambda: found(ill=False),
    }
    async with listening("127.0.0.1", 0, pages) as (host, port):
        expected = {
            "/livez": [],
            "/readyz": ["second: a\n\x1b[31m"],
            "/other": [f"what answers at {host}:{port} is no worker"],
        }
        for path, failures in expected.items():
            assert await asyncio.to_thread(request_health, host, port, path) == failures


async def found(*, ill: bool) -> Page:
    """Answer as a worker does."""
    return health_page({"first": None, "second": "a\n\x1b[31m" if ill else None})


def test_a_missing_worker_is_named() -> None:
    """In a sentence, with its address."""
    port = free_port()
    (sentence,) = request_health("127.0.0.1", port, "/readyz")
    assert sentence.startswith(f"no worker answers at 127.0.0.1:{port} (")
    assert sentence.endswith("Connection refused). Is tally run running, with the same TALLY_HTTP?")


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give a slow machine time to answer."""
    monkeypatch.setattr(health, "CHECK_SECONDS", 60)


@asynccontextmanager
async def answering(answer: bytes) -> AsyncIterator[tuple[str, int]]:
    """Serve this answer to every request."""

    async def write_answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(answer)
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(write_answer, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[:2]


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"garbage \x1b[31m\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\n\r\n[]",
        b"HTTP/1.1 200 OK\r\n\r\n{}",
        b'HTTP/1.1 200 OK\r\n\r\n{"checks": [1]}',
        b'HTTP/1.1 200 OK\r\n\r\n{"checks": {"a": 1}}',
        b'HTTP/1.1 503 Busy\r\n\r\n{"checks": {"a": {"ok": false}}}',
        b"HTTP/1.1 200 OK\r\n\r\n" + b"[" * 70_000,
        b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 1000,
        b"HTTP/1.1 200 OK\r\nA: " + b"x" * 1_000_000,
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}",
    ],
)
@pytest.mark.usefixtures("patient")
async def test_another_server_is_no_worker(answer: bytes) -> None:
    """Whatever it answers, the result is one printable sentence."""
    async with answering(answer) as (host, port):
        (wrong,) = await asyncio.to_thread(request_health, host, port, "/readyz")

    assert str(port) in wrong
    assert wrong.isprintable()


@pytest.mark.usefixtures("patient")
async def test_a_bad_status_is_a_failure() -> None:
    """Even where no check failed."""
    async with answering(b'HTTP/1.1 503 Busy\r\n\r\n{"checks": {}}') as (host, port):
        assert await asyncio.to_thread(request_health, host, port, "/readyz") == ["answered 503"]
