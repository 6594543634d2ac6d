"""The endless poll: answers in order, with PubNub's own cursors."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace

import pytest

from tests.source.passing_time import Passes
from tests.source.scripted import Reply, ScriptedPubNub, answer, json_reply
from tests.waiting import wait_until
from worker.domain.position import HANDSHAKE, Cursor
from worker.errors import PubNubError, ThrottledError
from worker.source.backoff import FIRST_SECONDS, LONGEST_SECONDS, Backoff, elapsed_clock
from worker.source.client import Client
from worker.source.live import Item, Poller, Received
from worker.source.names import Names
from worker.source.reachability import ANSWER_SECONDS, NEXT_SECONDS, PROBE_SECONDS, Reachability
from worker.source.refusals import REFUSED_SECONDS, Readmitted, Refused

NAMES = Names(("a", "b"), ("w.*",), ("g",))
HANGS = Reply(hangs=True)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make waits after a failure a hundred times shorter."""
    monkeypatch.setattr("worker.source.backoff.FIRST_SECONDS", FIRST_SECONDS / 100)


@asynccontextmanager
async def polling(client: Client, cursor: Cursor = HANDSHAKE) -> AsyncIterator[AsyncIterator[Item]]:
    """Yield the items of a poller with the clock of the running loop."""
    poller = new_poller(client, asyncio.get_running_loop().time)
    async with aclosing(poller.items(cursor)) as polled:  # type: ignore[type-var]
        yield polled


def new_poller(client: Client, clock: Callable[[], float]) -> Poller:
    """Return a poller of the names."""
    reachability = Reachability(Backoff(random.Random(1)), clock)
    return Poller(client, NAMES, reachability, clock)


async def items(client: Client, count: int, cursor: Cursor = HANDSHAKE) -> list[Item]:
    """Return the first items of a poller."""
    async with polling(client, cursor) as polled:
        return [await anext(polled) for _ in range(count)]


async def a_minute_later(
    polled: AsyncIterator[Item], passes: Passes, is_waiting: Callable[[], bool]
) -> Item:
    """Let a minute pass while the poller waits. Returns the next item."""
    coming = asyncio.ensure_future(anext(polled))
    await wait_until(is_waiting)
    passes(REFUSED_SECONDS)
    return await coming


def forbidden(channels: list[str], groups: list[str] | None = None) -> Reply:
    """Return a 403 with these names."""
    payload = {"channels": channels} | ({"channel-groups": groups} if groups else {})
    return json_reply(
        {"message": "Forbidden", "payload": payload, "error": True, "status": 403}, 403
    )


def polled_names(server: ScriptedPubNub) -> list[tuple[str, str]]:
    """Return the channels and groups of each poll."""
    return [
        (asked.path.split("/")[4], asked.parameters.get("channel-group", ""))
        for asked in server.requests
    ]


async def test_the_next_poll_has_pubnubs_own_cursor(server: ScriptedPubNub, client: Client) -> None:
    """The cursor can go back, and can have another region."""
    server.script(
        answer("17600000000000009", region=4),
        answer("17600000000000005", {"e": 0}, region=12),
        HANGS,
    )

    first, second = await items(client, 2)

    assert isinstance(first, Received)
    assert isinstance(second, Received)
    assert first.answer.cursor == Cursor("17600000000000009", 4)
    assert second.answer.messages() == ({"e": 0},)
    handshake, poll = (request.parameters for request in server.requests[:2])
    assert (handshake["tt"], poll["tt"], poll["tr"]) == ("0", "17600000000000009", "4")
    assert polled_names(server)[0] == ("a,b,w.%2A", "g")


@pytest.mark.parametrize(
    "trouble",
    [
        Reply(503, b"<html>", {"Content-Type": "text/html"}),
        Reply(200, b"{"),
        json_reply({}),
        Reply(drops=True),
        json_reply({}, 429, Retry_After="0"),
    ],
    ids=str,
)
async def test_a_failed_poll_is_repeated(
    server: ScriptedPubNub, client: Client, trouble: Reply
) -> None:
    """It has the same cursor, so no event is skipped."""
    server.script(trouble, trouble, answer("17600000000000009"), HANGS)
    start = Cursor("17600000000000001", 4)

    [item] = await items(client, 1, start)

    assert isinstance(item, Received)
    assert [request.parameters["tt"] for request in server.requests[:3]] == [start.timetoken] * 3


@asynccontextmanager
async def an_idle_poll_after_a_failure(
    server: ScriptedPubNub, client: Client, *probes: Reply
) -> AsyncIterator[Poller]:
    """Let the second poll wait. Answer the handshakes beside it with ``probes``."""
    server.script(Reply(503), HANGS, *probes)
    poller = new_poller(client, asyncio.get_running_loop().time)
    items = poller.items(Cursor("5", 4))
    async with aclosing(items):  # type: ignore[type-var]
        coming = asyncio.ensure_future(anext(items))
        await wait_until(lambda: server.waiting == 1)
        assert poller.state == "unreachable"
        yield poller
        assert not coming.done()
        coming.cancel()
        await asyncio.wait([coming])


async def test_a_handshake_ends_an_outage(
    server: ScriptedPubNub, client: Client, passes: Passes
) -> None:
    """PubNub answers it at once. The poll waits on, with the same cursor."""
    async with an_idle_poll_after_a_failure(server, client, answer("9"), HANGS) as poller:
        passes(PROBE_SECONDS)
        await wait_until(lambda: poller.state == "following")

        assert poller.reachability.problem == ""
        assert poller.reachability.answered_at is None
        assert [asked.parameters["tt"] for asked in server.requests] == ["5", "5", "0"]
        assert server.waiting == 1


@pytest.mark.parametrize(("probe", "problem"), [(HANGS, "503"), (Reply(500), "500")])
async def test_an_outage_lasts_until_a_handshake_is_answered(
    server: ScriptedPubNub, client: Client, passes: Passes, probe: Reply, problem: str
) -> None:
    """A poll that waits may hang in a connection that swallows everything."""
    async with an_idle_poll_after_a_failure(server, client, probe, answer("9"), HANGS) as poller:
        passes(PROBE_SECONDS)
        await server.asked(3)
        passes(ANSWER_SECONDS)
        await wait_until(lambda: server.waiting == 1 and problem in client.contact.problem)
        assert poller.state == "unreachable"

        passes(NEXT_SECONDS)
        await wait_until(lambda: poller.state == "following")


async def test_a_handshake_does_not_shorten_the_waits(
    server: ScriptedPubNub, client: Client, passes: Passes
) -> None:
    """Something on the way may cut each poll just after it. An answered poll shortens them."""
    error, shortest = PubNubError("cut"), FIRST_SECONDS / 100
    async with an_idle_poll_after_a_failure(server, client, answer("9"), HANGS) as poller:
        passes(PROBE_SECONDS)
        await wait_until(lambda: poller.state == "following")
        assert poller.reachability.failed(error, NAMES) > shortest

        poller.reachability.answered(0.0)
        assert poller.reachability.failed(error, NAMES) <= shortest


async def test_a_refusal_ends_an_outage(server: ScriptedPubNub, client: Client) -> None:
    """It is an answer, too, though no poll follows it."""
    server.script(Reply(503), forbidden(["a", "b", "w.*"], [":g"]))
    poller = new_poller(client, elapsed_clock)
    async with aclosing(poller.items(Cursor("5", 4))) as polled:  # type: ignore[type-var]
        assert await anext(polled) == Refused(NAMES)

    assert poller.state == "refused"
    assert "403" in poller.reachability.problem


async def test_a_refused_name_is_left_out_and_tried_again(
    server: ScriptedPubNub, client: Client, passes: Passes
) -> None:
    """The others are polled. The missed events are reported at both ends."""
    server.script(forbidden(["b"]), answer("1"), answer("2", {"e": 0}), HANGS)
    refused, first, second = await items(client, 3)
    assert refused == Refused(Names(("b",)))
    assert isinstance(first, Received)
    assert isinstance(second, Received)
    assert [names for names, _ in polled_names(server)[:3]] == ["a,b,w.%2A", "a,w.%2A", "a,w.%2A"]

    server.requests.clear()
    server.script(forbidden(["b"], [":g"]), HANGS, answer("9"), answer("3"), HANGS)
    async with polling(client) as polled:
        lost = await anext(polled)
        regained = await a_minute_later(polled, passes, lambda: server.waiting == 1)
        received = await anext(polled)

    names = Names(("b",), (), ("g",))
    assert (lost, regained) == (Refused(names), Readmitted(names))
    assert isinstance(received, Received)
    every = ("a,b,w.%2A", "g")
    assert polled_names(server)[:4] == [every, ("a,w.%2A", ""), ("b", "g"), every]


async def test_a_try_of_refused_names_does_not_cut_the_poll(
    server: ScriptedPubNub, client: Client, passes: Passes
) -> None:
    """The poll of the others is idle for minutes. Each try reports the refusal."""
    idle = asyncio.Event()
    server.script(forbidden(["b"]))
    server.script(replace(answer("7"), after=idle), under="/v2/subscribe/sub-c-scripted/a,w.%2A/")

    def polls_of_the_others() -> list[str]:
        return [request.parameters["tt"] for request in server.requests if "a,w." in request.path]

    async with polling(client, Cursor("5", 4)) as polled:
        refused = [await anext(polled)]
        refused += [
            await a_minute_later(polled, passes, lambda: bool(polls_of_the_others()))
            for _ in range(3)
        ]
        idle.set()
        received = await anext(polled)

    lost = Names(("b",))
    assert refused == [Refused(lost), *[Refused(lost, is_new=False)] * 3]
    assert isinstance(received, Received)
    assert polls_of_the_others() == ["5"]


async def test_a_failed_try_leaves_its_names_refused(
    server: ScriptedPubNub, client: Client, passes: Passes
) -> None:
    """The others are polled meanwhile."""
    server.script(forbidden(["b"]))
    server.script(json_reply({}, 500), under="/v2/subscribe/sub-c-scripted/b/")
    server.script(answer("7"), HANGS, under="/v2/subscribe/sub-c-scripted/a,w.%2A/")

    async with polling(client) as polled:
        refused, received = await anext(polled), await anext(polled)
        later = [
            await a_minute_later(polled, passes, lambda: server.waiting == 1) for _ in range(2)
        ]

    lost = Names(("b",))
    assert refused == Refused(lost)
    assert isinstance(received, Received)
    assert later == [Refused(lost, is_new=False)] * 2


async def test_a_refused_try_does_not_hide_an_outage_of_the_others(
    server: ScriptedPubNub, client: Client, passes: Passes
) -> None:
    """It tells nothing of them. Their polls fail before it and after it."""
    server.script(forbidden(["b"]))
    server.script(Reply(500), under="/v2/subscribe/sub-c-scripted/a,w.%2A/")
    poller = new_poller(client, asyncio.get_running_loop().time)
    reachability = poller.reachability

    async with aclosing(poller.items(HANDSHAKE)) as polled:  # type: ignore[type-var]
        await anext(polled)
        later = await a_minute_later(polled, passes, lambda: reachability.failing_since is not None)
        assert later == Refused(Names(("b",)), is_new=False)
        assert poller.state == "unreachable"
        assert "500" in reachability.problem


async def test_a_name_that_is_tried_alone_does_not_end_an_outage(
    server: ScriptedPubNub, client: Client, passes: Passes
) -> None:
    """PubNub does not say which name it refuses, and is slow. Nothing is asked beside the try."""
    server.script(Reply(503), forbidden([]), HANGS, answer("9"))
    server.script(json_reply([17600000000000000]), under="/time/")
    poller = new_poller(client, asyncio.get_running_loop().time)

    async with aclosing(poller.items(Cursor("5", 4))) as polled:  # type: ignore[type-var]
        coming = asyncio.ensure_future(anext(polled))
        await wait_until(lambda: server.waiting == 1)
        passes(PROBE_SECONDS)
        await client.time()
        await client.time()
        assert len([asked for asked in server.requests if "/v2/subscribe" in asked.path]) == 3
        assert poller.state == "unreachable"
        coming.cancel()
        await asyncio.wait([coming])


async def test_names_are_refused_one_after_the_other(
    server: ScriptedPubNub, client: Client, passes: Passes
) -> None:
    """PubNub can name one at a time. A try can readmit some of them."""
    server.script(forbidden(["a"]), forbidden(["w.*"]), HANGS, forbidden(["a"]), answer("1"), HANGS)

    async with polling(client) as polled:
        refused = [await anext(polled) for _ in range(2)]
        refused.append(await a_minute_later(polled, passes, lambda: server.waiting == 1))
        received = await anext(polled)

    both = Names(("a",), ("w.*",))
    assert refused == [Refused(Names(("a",))), Refused(both), Refused(both)]
    assert isinstance(received, Received)
    assert [names for names, _ in polled_names(server)[:5]] == [
        "a,b,w.%2A",
        *("b,w.%2A", "b", "a,w.%2A", "b,w.%2A"),
    ]


@pytest.mark.parametrize("named", [[], ["stranger"]])
async def test_a_refusal_without_names_is_examined(
    server: ScriptedPubNub, client: Client, named: list[str]
) -> None:
    """Each name is tried alone, with a handshake. Only the refused ones are left out."""
    server.script(forbidden(named), *[answer("1")] * 3, answer("9"), HANGS)
    server.script(forbidden(named), under="/v2/subscribe/sub-c-scripted/b/")

    refused, received = await items(client, 2, Cursor("5", 4))

    assert refused == Refused(Names(("b",)))
    assert isinstance(received, Received)
    probes = server.requests[1:5]
    assert {request.parameters["tt"] for request in probes} == {"0"}
    assert server.requests[5].parameters["tt"] == "5"
    assert polled_names(server)[5] == ("a,w.%2A", "g")


async def test_names_that_are_only_refused_together_all_wait(
    server: ScriptedPubNub, client: Client, passes: Passes
) -> None:
    """No name is polled until the next try."""
    server.script(forbidden([]), *[answer("1")] * 4, answer("9"), answer("1"), HANGS)

    async with polling(client) as polled:
        refused = await anext(polled)
        coming = asyncio.ensure_future(anext(polled))
        await asyncio.wait({coming}, timeout=0.01)
        asked = len(server.requests)
        passes(REFUSED_SECONDS)
        readmitted, received = await coming, await anext(polled)

    assert asked == 1 + len(NAMES.all)
    assert (refused, readmitted) == (Refused(NAMES), Readmitted(NAMES))
    assert isinstance(received, Received)


def bad_request() -> Reply:
    """Return a 400."""
    return json_reply({"status": 400, "error": True, "message": "Invalid Channel"}, 400)


async def test_a_rejected_name_is_left_out(server: ScriptedPubNub, client: Client) -> None:
    """PubNub does not say which it was, so each is tried alone."""
    server.script(bad_request(), answer("1"), bad_request(), *[answer("1")] * 2, answer("9"), HANGS)

    refused, received = await items(client, 2)

    assert refused == Refused(Names(("b",)))
    assert isinstance(received, Received)
    assert polled_names(server)[5] == ("a,w.%2A", "g")


async def test_a_rejected_request_refuses_no_name(server: ScriptedPubNub, client: Client) -> None:
    """A wrong key is answered with 400, too: the poller waits and asks again."""
    server.script(*[bad_request()] * 5, answer("9"), HANGS)

    [received] = await items(client, 1)

    assert isinstance(received, Received)
    assert polled_names(server)[5] == polled_names(server)[0]


async def test_a_new_beginning_reports_a_refusal_again(
    server: ScriptedPubNub, client: Client
) -> None:
    """The report before can be lost with an answer that waited too long."""
    server.script(forbidden(["b"]), answer("1"), forbidden(["b"]), answer("2"), HANGS)
    poller = new_poller(client, elapsed_clock)
    for _ in range(2):
        async with aclosing(poller.items(Cursor("5", 4))) as polled:  # type: ignore[type-var]
            assert isinstance(await anext(polled), Refused)
            assert isinstance(await anext(polled), Received)


async def test_an_answer_of_unknown_age_is_asked_for_again(
    server: ScriptedPubNub, client: Client
) -> None:
    """The machine was suspended for hours meanwhile."""
    server.script(answer("7", {"e": 0}), answer("8", {"e": 0}), HANGS)
    poller = new_poller(client, lambda: 7200.0 if server.requests else 0.0)
    async with aclosing(poller.items(Cursor("5", 4))) as polled:  # type: ignore[type-var]
        item = await anext(polled)

    assert isinstance(item, Received)
    assert item.answer.cursor.timetoken == "8"
    assert [request.parameters["tt"] for request in server.requests[:2]] == ["5", "5"]


def test_waits_grow_with_jitter_and_start_again() -> None:
    """They are half the shortest to the longest. A success resets them."""
    backoff = Backoff(random.Random(1))
    waits = [backoff.failed(PubNubError("away")) for _ in range(40)]
    assert all(0 < wait <= LONGEST_SECONDS for wait in waits)
    assert max(waits) > LONGEST_SECONDS / 2
    assert waits[0] < waits[6] < waits[12]

    backoff.succeeded()
    assert backoff.failed(PubNubError("away")) <= FIRST_SECONDS


def test_a_wait_is_never_shorter_than_retry_after() -> None:
    """Without one, the usual wait counts."""
    backoff = Backoff(random.Random(1))
    assert backoff.failed(ThrottledError("slow down", retry_after=100)) == 100
    assert 0 < backoff.failed(ThrottledError("slow down", retry_after=None)) <= LONGEST_SECONDS
