"""Health as named checks, and asking a worker for it."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest

from tests.redis_server import free_port
from worker.telemetry import health
from worker.telemetry.health import examine, request_health
from worker.telemetry.http import Answer, Page, health_page, listening


async def well() -> str | None:
    """Find nothing wrong."""
    return None


async def ill() -> str | None:
    """Find something wrong, in a stranger's words."""
    return "a\n\x1b[31m"


async def stuck() -> str | None:
    """Never find anything."""
    await asyncio.Event().wait()
    return None


async def test_each_check_is_told_by_its_name() -> None:
    """200 if all are well, else 503 with the reasons; one line, which obeys nobody."""
    fine, not_fine = (
        health_page(await examine({"a": well, "b": well})),
        health_page(await examine({"a": well, "b": ill})),
    )

    assert fine.status == 200
    assert json.loads(fine.body) == {"ok": True, "checks": {"a": {"ok": True}, "b": {"ok": True}}}
    assert not_fine.status == 503
    assert json.loads(not_fine.body) == {
        "ok": False,
        "checks": {"a": {"ok": True}, "b": {"ok": False, "reason": "a\n\x1b[31m"}},
    }
    assert not_fine.body.count(b"\n") == 1
    assert b"\x1b" not in not_fine.body


async def test_no_check_is_waited_for_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that does not answer is what is wrong."""
    monkeypatch.setattr(health, "CHECK_SECONDS", 0.01)
    found = await examine({"a": well, "b": stuck, "c": stuck})

    assert found == {"a": None, "b": "no answer in 0.01 s", "c": "no answer in 0.01 s"}


async def test_all_checks_are_asked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else one could not wait for the other, and the other for it."""
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
async def test_a_worker_is_asked_how_it_is() -> None:
    """Nothing if it is well, each failing check if not."""
    pages: dict[str, Answer] = {
        "/readyz": lambda: found(ill=True),
        "/livez": lambda: found(ill=False),
    }
    async with listening("127.0.0.1", 0, pages) as (host, port):
        assert await asyncio.to_thread(request_health, host, port, "/livez") == []
        assert await asyncio.to_thread(request_health, host, port, "/readyz") == [
            "second: a\n\x1b[31m"
        ]
        assert await asyncio.to_thread(request_health, host, port, "/other") == [
            f"what answers at {host}:{port} is no worker"
        ]


async def found(*, ill: bool) -> Page:
    """Answer as a worker does."""
    return health_page({"first": None, "second": "a\n\x1b[31m" if ill else None})


def test_nobody_there_is_said() -> None:
    """In a sentence, with where."""
    port = free_port()
    assert request_health("127.0.0.1", port, "/readyz") == [
        f"no worker answers at 127.0.0.1:{port} (ConnectionRefusedError)"
    ]


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give a slow machine time to answer."""
    monkeypatch.setattr(health, "CHECK_SECONDS", 60)


@asynccontextmanager
async def saying(told: bytes) -> AsyncIterator[tuple[str, int]]:
    """Answer everybody so."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(told)
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[:2]


@pytest.mark.parametrize(
    "told",
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
async def test_whoever_else_answers_is_no_worker(told: bytes) -> None:
    """Whatever it answers is told in a sentence of ours, and is no traceback."""
    async with saying(told) as (host, port):
        (wrong,) = await asyncio.to_thread(request_health, host, port, "/readyz")

    assert str(port) in wrong
    assert wrong.isprintable()


@pytest.mark.usefixtures("patient")
async def test_a_worker_that_answers_badly_is_not_well() -> None:
    """No check failed, and yet the answer is no 200."""
    async with saying(b'HTTP/1.1 503 Busy\r\n\r\n{"checks": {}}') as (host, port):
        assert await asyncio.to_thread(request_health, host, port, "/readyz") == ["answered 503"]
