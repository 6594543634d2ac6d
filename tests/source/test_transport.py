"""Connections, timeouts, cancellation and certificates of the client."""

import asyncio
import gc
from dataclasses import replace

import pytest
import trustme

from tests.redis_server import free_port
from tests.source.passing_time import Passes
from tests.source.scripted import LATER, Reply, ScriptedPubNub, answer, json_reply
from tests.source.tls_server import TlsServer
from tests.waiting import wait_until
from worker.errors import PubNubError
from worker.service.file_limit import ensure_files
from worker.source import endpoints, transport
from worker.source.backoff import elapsed_clock
from worker.source.client import Client, Keyset, Page
from worker.source.names import Names

MANY = 520
"""Polls at once. A worker has a limit of open files for each of its subscriptions."""


@pytest.mark.parametrize("reply", [Reply(drops=True), Reply(drops_halfway=True)])
async def test_a_broken_connection_is_an_error(
    server: ScriptedPubNub, client: Client, reply: Reply
) -> None:
    """It has no status."""
    server.script(reply)

    with pytest.raises(PubNubError, match="the connection broke") as caught:
        await client.time()

    assert caught.value.status is None


async def test_a_refused_connection_is_an_error(keyset: Keyset) -> None:
    """It has no status, and our own words."""
    async with Client(replace(keyset, origin=f"127.0.0.1:{free_port()}")) as client:
        with pytest.raises(PubNubError, match="connection refused") as caught:
            await client.time()
    assert caught.value.status is None


@pytest.mark.parametrize("reply", [Reply(hangs=True), Reply(drips=True)], ids=["silent", "drips"])
async def test_a_slow_answer_is_an_error(
    server: ScriptedPubNub, client: Client, passes: Passes, reply: Reply
) -> None:
    """A byte now and then does not extend its time."""
    server.script(reply)
    poll = asyncio.create_task(client.subscribe(["room"], [], LATER))
    await server.asked(1)

    passes(endpoints.POLL_SECONDS)

    with pytest.raises(PubNubError, match="no answer in time"):
        await poll


async def test_a_poll_ends_after_the_machine_slept(
    server: ScriptedPubNub, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loop's clock stood still meanwhile. A request after that has its full time."""
    monkeypatch.setattr(transport, "CHECK_SECONDS", 0.01)
    slept = 0.0
    monkeypatch.setattr(transport, "elapsed_clock", lambda: elapsed_clock() + slept)
    server.script(Reply(hangs=True), under="/v2/subscribe")
    server.script(json_reply([17600000000000002]), under="/time/0")
    poll = asyncio.create_task(client.subscribe(["room"], [], LATER))
    await server.asked(1)

    slept += endpoints.POLL_SECONDS + 1

    with pytest.raises(PubNubError, match="no answer in time"):
        await poll
    assert await client.time() == "17600000000000002"


async def test_an_exception_of_the_sdk_is_an_error(
    keyset: Keyset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The SDK raises one for a timeout with a fraction, for example."""
    monkeypatch.setattr(endpoints, "REQUEST_SECONDS", 0.5)
    async with Client(keyset) as client:
        with pytest.raises(PubNubError, match=r"no answer \(AssertionError\)"):
            await client.time()


async def test_a_timeout_or_cancellation_ends_a_poll(
    server: ScriptedPubNub, client: Client
) -> None:
    """Its connection is closed, too."""
    server.script(Reply(hangs=True))

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await client.subscribe(["room"], [], LATER)
    poll = asyncio.create_task(client.subscribe(["room"], [], LATER))
    await wait_until(lambda: server.waiting == 1)
    poll.cancel()
    await asyncio.wait({poll})

    assert poll.cancelled()
    await wait_until(lambda: server.waiting == 0 and server.open_connections == 0)


async def test_a_task_cancelled_before_its_request_ends(
    server: ScriptedPubNub, client: Client
) -> None:
    """The request does not lose the cancellation."""
    server.script(answer("17600000000000002"))

    async def cancel_itself_and_ask() -> None:
        task = asyncio.current_task()
        assert task
        task.cancel()
        await client.subscribe(["room"], [], LATER)

    task = asyncio.create_task(cancel_itself_and_ask())
    await asyncio.wait({task})

    assert task.cancelled()


async def test_a_cancelled_task_can_send_a_last_request(
    server: ScriptedPubNub, client: Client
) -> None:
    """A cancellation that the task has caught does not end its next request."""
    server.script(json_reply([17600000000000002]))
    has_begun = asyncio.Event()

    async def ask_at_the_end() -> str:
        has_begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return await client.time()
        raise AssertionError

    task = asyncio.create_task(ask_at_the_end())
    await has_begun.wait()
    task.cancel()

    assert await task == "17600000000000002"


async def test_history_runs_beside_more_polls_than_any_pool_has(
    server: ScriptedPubNub, client: Client
) -> None:
    """Each poll has its own connection: only the limit of open files bounds their number."""
    rooms = tuple(f"room-{number}" for number in range(MANY))
    ensure_files(Names(rooms), 1)
    server.script(Reply(hangs=True), under="/v2/subscribe")
    server.script(json_reply({"status": 200, "data": []}), under="/v1/message-actions")
    polls = [asyncio.create_task(client.subscribe([room], [], LATER)) for room in rooms]
    await wait_until(lambda: server.waiting == MANY)

    assert await client.message_actions("room") == Page((), None)

    for poll in polls:
        poll.cancel()
    await asyncio.wait(polls)
    await wait_until(lambda: server.waiting == 0)


async def test_a_closed_client_ends_its_requests(server: ScriptedPubNub, keyset: Keyset) -> None:
    """Later requests are refused. A client can be closed twice."""
    server.script(Reply(hangs=True))
    client = Client(keyset)
    poll = asyncio.create_task(client.subscribe(["room"], [], LATER))
    await server.asked(1)

    await client.close()
    await client.close()

    with pytest.raises(PubNubError, match="the connection broke"):
        await poll
    with pytest.raises(PubNubError, match="the client is closed"):
        await client.time()
    assert len(server.requests) == 1
    await wait_until(lambda: server.open_connections == 0)


async def test_an_unused_client_leaves_nothing(keyset: Keyset) -> None:
    """An event loop left open would be a warning, and so an error."""
    before = asyncio.all_tasks()

    async with Client(keyset):
        pass
    gc.collect()

    assert asyncio.all_tasks() == before


async def test_a_trusted_certificate_is_accepted(keyset: Keyset, authority: trustme.CA) -> None:
    """Its authority is known, and its name is the host's."""
    async with (
        TlsServer(authority, "127.0.0.1").origin() as origin,
        Client(replace(keyset, origin=origin, tls=True)) as client,
    ):
        assert await client.time() == "17600000000000002"


async def test_a_silent_tls_handshake_times_out(
    keyset: Keyset, authority: trustme.CA, monkeypatch: pytest.MonkeyPatch, passes: Passes
) -> None:
    """It counts as connecting."""
    monkeypatch.setattr(endpoints, "CONNECT_SECONDS", 5)
    silent = TlsServer(authority, "127.0.0.1", answers=False)
    async with (
        silent.origin() as origin,
        Client(replace(keyset, origin=origin, tls=True)) as client,
    ):
        request = asyncio.create_task(client.time())
        await silent.accepted.wait()

        passes(6)

        with pytest.raises(PubNubError, match="no connection in time") as caught:
            await request
    assert caught.value.status is None
