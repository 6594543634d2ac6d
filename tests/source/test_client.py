"""What the client promises whoever asks it: faithful requests, checked answers, three errors, cancellation, silence."""

import asyncio
import base64
import gc
import hashlib
import hmac
import logging
import ssl
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

import pytest
import trustme

from tests.redis_server import free_port
from tests.source.passing_time import Passes, passing_time
from tests.source.scripted import (
    SUBSCRIBE_KEY,
    Reply,
    ScriptedPubNub,
    answer,
    json_reply,
    wait_until,
)
from worker.domain.position import HANDSHAKE, Cursor
from worker.errors import (
    ConfigurationError,
    ForbiddenError,
    PubNubError,
    ThrottledError,
    TransientError,
)
from worker.source import endpoints
from worker.source.client import Answer, Client, Keyset, Page

LATER = Cursor("17600000000000001", 12)
HTML = Reply(503, b"<html>auth=canary-token</html>", {"Content-Type": "text/html"})
Ask = Callable[[Client], Awaitable[object]]
ASKS: dict[str, Ask] = {
    "subscribe": lambda client: client.subscribe(["a room", "b"], ["a group", "b"], LATER),
    "message_actions": lambda client: client.message_actions("room"),
    "group_channels": lambda client: client.group_channels("g"),
    "time": lambda client: client.time(),
}
every_request = pytest.mark.parametrize("ask", ASKS.values(), ids=ASKS.keys())


@pytest.fixture
async def server() -> AsyncIterator[ScriptedPubNub]:
    """Serve a script."""
    async with ScriptedPubNub() as server:
        yield server


@pytest.fixture
def keyset(server: ScriptedPubNub) -> Keyset:
    """Return a keyset that leads to the script."""
    return Keyset(SUBSCRIBE_KEY, "tally", origin=server.origin, tls=False)


@pytest.fixture
async def client(keyset: Keyset) -> AsyncIterator[Client]:
    """Return a client of the script."""
    async with Client(keyset) as client:
        yield client


@pytest.fixture
async def passes(monkeypatch: pytest.MonkeyPatch) -> Passes:
    """Return how to let time pass."""
    return passing_time(monkeypatch)


async def test_a_handshake_asks_for_now(server: ScriptedPubNub, client: Client) -> None:
    """``tt=0`` and no region; neither heartbeat nor the event engine's flag."""
    server.script(answer("17600000000000001", region=7))

    assert await client.subscribe(["b", "a"], ["g"], HANDSHAKE) == Answer(
        Cursor("17600000000000001", 7), ()
    )

    (asked,) = server.requests
    assert asked.path == f"/v2/subscribe/{SUBSCRIBE_KEY}/a,b/0"
    assert set(asked.parameters) == {"tt", "channel-group", "uuid", "pnsdk"}
    assert (asked.parameters["tt"], asked.parameters["uuid"]) == ("0", "tally")


async def test_a_handshake_names_no_region(server: ScriptedPubNub, client: Client) -> None:
    """Even if the cursor, of all things zero, has one."""
    server.script(answer("17600000000000001"))

    await client.subscribe(["room"], [], replace(HANDSHAKE, region=7))

    assert "tr" not in server.requests[0].parameters


async def test_a_poll_carries_its_cursor_verbatim(server: ScriptedPubNub, client: Client) -> None:
    """And a cursor without a region sends none."""
    server.script(answer("17600000000000002"))

    await client.subscribe(["room"], [], LATER)
    await client.subscribe(["room"], [], replace(LATER, region=0))

    sent = [(asked.parameters["tt"], asked.parameters.get("tr")) for asked in server.requests]
    assert sent == [("17600000000000001", "12"), ("17600000000000001", None)]


async def test_messages_come_back_as_they_came(server: ScriptedPubNub, client: Client) -> None:
    """In their order, repeated, malformed or not even objects: judging them is somebody else's work."""
    messages = [
        {"e": 3, "d": {"value": "👍"}},
        "nonsense",
        None,
        {"c": "room-pnpres"},
        {"e": 3, "d": {"value": "👍"}},
    ]
    server.script(answer("17600000000000000", *messages, region=0))

    received = await client.subscribe(["room"], [], LATER)

    assert received == Answer(Cursor("17600000000000000", 0), tuple(messages))


async def test_groups_may_be_asked_alone(server: ScriptedPubNub, client: Client) -> None:
    """A lone comma then stands for the channels."""
    server.script(answer("17600000000000002"))

    await client.subscribe([], ["g2", "g1"], LATER)

    assert server.requests[0].path == f"/v2/subscribe/{SUBSCRIBE_KEY}/,/0"
    assert server.requests[0].parameters["channel-group"] == "g1,g2"


@pytest.mark.parametrize(
    "name", ["a.b", "a b", "50%", "%2E%2E", "é", "👍", "a+b&c=d?e#f", "a/../b", "a.*", "...", "x\n"]
)
async def test_names_arrive_whole(server: ScriptedPubNub, client: Client, name: str) -> None:
    """Percent-encoded once, in the path and in the query."""
    server.script(json_reply({"status": 200, "data": []}))
    server.script(answer("17600000000000002"), under="/v2/subscribe")

    await client.message_actions(name)
    await client.subscribe([name], [name], LATER)

    encoded = quote(name, safe="~")
    paths = [asked.path for asked in server.requests]
    assert paths == [
        f"/v1/message-actions/{SUBSCRIBE_KEY}/channel/{encoded}",
        f"/v2/subscribe/{SUBSCRIBE_KEY}/{encoded}/0",
    ]
    assert server.requests[1].parameters["channel-group"] == name


@pytest.mark.parametrize("name", ["", ".", "..", "\ud83d"])
async def test_names_that_cannot_arrive_are_refused(
    server: ScriptedPubNub, client: Client, name: str
) -> None:
    """Dots would collapse the path, a lone surrogate has no bytes."""
    asks = (
        client.message_actions(name),
        client.group_channels(name),
        client.subscribe([name], ["g"], LATER),
    )
    for refused in (*asks, client.subscribe(["room"], [name], LATER)):
        with pytest.raises(ConfigurationError, match="cannot be asked"):
            await refused
    assert server.requests == []


async def test_a_poll_of_nothing_is_refused(client: Client) -> None:
    """PubNub would be asked for all channels of no name."""
    with pytest.raises(ConfigurationError, match="at least one"):
        await client.subscribe([], [], LATER)


async def test_a_page_is_asked_with_both_bounds(server: ScriptedPubNub, client: Client) -> None:
    """The SDK would drop ``end`` and the limit."""
    server.script(
        json_reply(
            {"status": 200, "data": [{"type": "a"}, "odd"], "more": {"start": "17600000000000003"}}
        )
    )

    page = await client.message_actions(
        "room", start="17600000000000009", end="17600000000000001", limit=100
    )

    assert page == Page(({"type": "a"}, "odd"), "17600000000000003")
    sent = server.requests[0].parameters
    assert (sent["start"], sent["end"], sent["limit"]) == (
        "17600000000000009",
        "17600000000000001",
        "100",
    )


async def test_a_page_may_be_empty_or_unbounded(server: ScriptedPubNub, client: Client) -> None:
    """The keys may stand in any order, ``more`` may carry a number, and the limit is sent all the same."""
    server.script(
        json_reply({"data": [], "status": 200}),
        json_reply({"more": {"start": 176, "url": "/"}, "data": []}),
    )

    assert await client.message_actions("room", limit=25) == Page((), None)
    assert await client.message_actions("room") == Page((), "176")

    assert [asked.parameters["limit"] for asked in server.requests] == ["25", "100"]
    assert not {"start", "end"} & set(server.requests[0].parameters)


async def test_a_group_and_the_clock_answer_plainly(server: ScriptedPubNub, client: Client) -> None:
    """A group's channels keep PubNub's order; the time is a timetoken."""
    server.script(
        json_reply(
            {"status": 200, "payload": {"channels": ["b", "a"], "group": "g"}, "error": False}
        )
    )
    server.script(json_reply([15800727359579289]), under="/time/0")

    assert await client.group_channels("g") == ("b", "a")
    assert await client.time() == "15800727359579289"
    assert (
        server.requests[0].path
        == f"/v1/channel-registration/sub-key/{SUBSCRIBE_KEY}/channel-group/g"
    )


async def test_a_new_token_is_used_from_then_on(server: ScriptedPubNub, keyset: Keyset) -> None:
    """By whatever is asked next; without a token none is sent. Tokens and user ids arrive whole."""
    server.script(answer("17600000000000002"))
    async with Client(replace(keyset, auth_token="a+b/c==&d", user_id="tally & co")) as client:
        await client.subscribe(["room"], [], LATER)
        client.use_token("new")
        await client.subscribe(["room"], [], LATER)
        client.use_token(None)
        await client.subscribe(["room"], [], LATER)

    assert [asked.parameters.get("auth") for asked in server.requests] == ["a+b/c==&d", "new", None]
    assert {asked.parameters["uuid"] for asked in server.requests} == {"tally & co"}


@every_request
async def test_a_secret_key_signs_each_request(
    server: ScriptedPubNub, keyset: Keyset, ask: Ask
) -> None:
    """Over what the server decodes: method, publish key, path and the sorted parameters."""
    server.script(json_reply({}))
    signing = replace(
        keyset, publish_key="pub-c", secret_key="sec-c", auth_token="a+b", user_id="it's tally"
    )
    async with Client(signing) as client:
        with suppress(PubNubError):
            await ask(client)

    (asked,) = server.requests
    signed = {name: quote(value, safe="") for name, value in sorted(asked.parameters.items())}
    signature = signed.pop("signature")
    query = "&".join(f"{name}={value}" for name, value in signed.items()).replace("~", "%7E")
    digest = hmac.digest(b"sec-c", f"GET\npub-c\n{asked.path}\n{query}\n".encode(), hashlib.sha256)
    assert signature == "v2." + base64.urlsafe_b64encode(digest).decode().rstrip("=")


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("3", 3.0),
        ("0.5", 0.5),
        (None, None),
        ("soon", None),
        ("-1", None),
        ("nan", None),
        ("9" * 40, None),
    ],
)
async def test_throttling_says_for_how_long(
    server: ScriptedPubNub, client: Client, header: str | None, seconds: float | None
) -> None:
    """``retry_after`` is in seconds, None if PubNub named none that makes sense."""
    server.script(Reply(429, b"<html>", {"Retry-After": header} if header else {}))

    with pytest.raises(ThrottledError, match="429") as caught:
        await client.time()

    assert (caught.value.retry_after, caught.value.status) == (seconds, 429)


ACCESS_MANAGER = {"message": "Forbidden", "error": True, "service": "Access Manager", "status": 403}


@pytest.mark.parametrize(
    ("body", "channels", "groups"),
    [
        (ACCESS_MANAGER | {"payload": {"channels": ["x", "y"]}}, {"x", "y"}, set()),
        (ACCESS_MANAGER | {"payload": {"channel-groups": [":g", "h"]}}, set(), {"g", "h"}),
        (ACCESS_MANAGER | {"payload": {"channels": "x", "channel-groups": ":g"}}, {"x"}, {"g"}),
        (ACCESS_MANAGER | {"payload": {"channels": [None, 7, ["x"], "y"]}}, {"y"}, set()),
        (
            ACCESS_MANAGER | {"payload": {"channels": {"x": 1}, "channel-groups": None}},
            set(),
            set(),
        ),
        (ACCESS_MANAGER | {"payload": ["x"]}, set(), set()),
        (ACCESS_MANAGER | {"payload": None}, set(), set()),
        ({"status": 403, "error": {"source": "actions", "message": "Forbidden."}}, set(), set()),
        ({"error": {"source": "actions", "message": ["odd"]}}, set(), set()),
        ({"message": "Token is expired.", "status": 403, "error": True}, set(), set()),
        (["Forbidden"], set(), set()),
        (None, set(), set()),
    ],
)
async def test_a_refusal_names_whom_it_concerns(
    server: ScriptedPubNub, client: Client, body: object, channels: set[str], groups: set[str]
) -> None:
    """Whatever the shape of the payload; groups without their colon."""
    server.script(json_reply(body, 403))

    with pytest.raises(ForbiddenError, match="403") as caught:
        await client.subscribe(["x", "y"], ["g"], LATER)

    assert (set(caught.value.channels), set(caught.value.groups), caught.value.status) == (
        channels,
        groups,
        403,
    )


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"message": "Token is expired.", "error": True}, "answered 403, Token is expired."),
        ({"error": {"source": "actions", "message": "Not yours."}}, "answered 403, Not yours."),
        ({"status": 0, "error": "Plain words"}, "answered 403, Plain words."),
        ({"error": True, "error_message": "Old style"}, "answered 403, Old style."),
        ({"message": "a\x1b[31m\r\nb\u2028c"}, "answered 403, a [31m b c."),
        ({"message": "x y " * 100}, "answered 403, " + "x y " * 50 + "…."),
    ],
)
async def test_an_error_repeats_what_pubnub_said(
    server: ScriptedPubNub, client: Client, body: object, words: str
) -> None:
    """In one line of bounded length, after what was asked."""
    server.script(json_reply(body, 403))

    with pytest.raises(ForbiddenError) as caught:
        await client.message_actions("room")

    assert str(caught.value) == f"PubNub, message actions of 'room': {words}"


@every_request
@pytest.mark.parametrize(
    ("reply", "status", "words"),
    [
        (json_reply({"message": "Not Found", "status": 404}, 404), 404, "404, Not Found"),
        (
            json_reply({"status": 400, "error": {"message": "Invalid input."}}, 400),
            400,
            "400, Invalid input",
        ),
        (json_reply({"status": 207, "error": {"message": "Stored"}}, 207), 207, "207, Stored"),
        (HTML, 503, "503, not JSON"),
        (Reply(502), 502, "502, not JSON"),
        (Reply(204), 204, "204"),
        (Reply(307), 307, "307"),
        (Reply(302, headers={"Location": "/elsewhere"}), 302, "302"),
        (Reply(200), 200, "200, not JSON"),
        (Reply(200, b'{"t":'), 200, "200, not JSON"),
        (Reply(200, b"\xff\xfe\xfd"), 200, "200, not JSON"),
        (Reply(200, b"[" * 100_000), 200, "200, not JSON"),
        (Reply(200, b"{}"), 200, "200 with no"),
        (Reply(200, b"[]"), 200, "200 with no"),
        (Reply(drops=True), None, "the connection broke"),
        (Reply(drops_halfway=True), None, "the connection broke"),
    ],
)
async def test_every_other_answer_is_one_error(
    server: ScriptedPubNub, client: Client, ask: Ask, reply: Reply, status: int | None, words: str
) -> None:
    """One that may be tried again, with the status where there was one, the body's form notwithstanding."""
    server.script(reply)

    with pytest.raises(PubNubError, match=words) as caught:
        await ask(client)

    assert (type(caught.value), caught.value.status) == (PubNubError, status)
    assert isinstance(caught.value, TransientError)


GOOD_PLACE = {"t": "17600000000000001", "r": 1}


WRONG: dict[str, tuple[object, ...]] = {
    "subscribe": (
        [1, 2],
        {"t": GOOD_PLACE},
        {"t": GOOD_PLACE, "m": None},
        {"t": GOOD_PLACE, "m": {"0": 1}},
        {"m": []},
        {"t": "17600000000000001", "m": []},
        {"t": {"r": 1}, "m": []},
        *(
            {"t": {"t": odd, "r": 1}, "m": []}
            for odd in ("", "12a", "-5", "1.5", "0", " 1", 1.5, True, "१")
        ),
        *({"t": {"t": "176", "r": odd}, "m": []} for odd in ("x", None, True, 1.5)),
    ),
    "message_actions": (
        [1, 2],
        {"status": 200},
        {"data": None},
        {"data": {}},
        {"data": [], "more": []},
        {"data": [], "more": {}},
        {"data": [], "more": {"start": "soon"}},
        {"data": [], "status": 503},
        {"data": [], "error": {"message": "partial"}},
    ),
    "group_channels": (
        [1, 2],
        {"payload": None},
        {"payload": []},
        {"payload": {}},
        {"payload": {"channels": "a"}},
        {"payload": {"channels": ["a", 1]}},
    ),
    "time": (["now"], [1.5], [True], [0], [[1]], "17600000000000001", {"time": 17600000000000001}),
}


@pytest.mark.parametrize(
    ("ask", "body"), [(ask, body) for ask, bodies in WRONG.items() for body in bodies]
)
async def test_a_success_of_wrong_shape_is_an_error(
    server: ScriptedPubNub, client: Client, ask: str, body: object
) -> None:
    """A cursor, a list or a time is there, or the answer is no answer."""
    server.script(json_reply(body))

    with pytest.raises(PubNubError, match="answered 200 with") as caught:
        await ASKS[ask](client)

    assert caught.value.status == 200


@every_request
async def test_a_refused_connection_is_an_error(keyset: Keyset, ask: Ask) -> None:
    """Without a status, and in our words."""
    async with Client(replace(keyset, origin=f"127.0.0.1:{free_port()}")) as client:
        with pytest.raises(PubNubError, match=r": no connection\.$") as caught:
            await ask(client)
    assert caught.value.status is None


@pytest.mark.parametrize("reply", [Reply(hangs=True), Reply(drips=True)], ids=["silent", "drips"])
async def test_a_slow_answer_is_an_error(
    server: ScriptedPubNub, client: Client, passes: Passes, reply: Reply
) -> None:
    """Even if a byte comes now and then."""
    server.script(reply)
    poll = asyncio.create_task(client.subscribe(["room"], [], LATER))
    await server.asked(1)

    passes(endpoints.POLL_SECONDS)

    with pytest.raises(PubNubError, match="no answer in time"):
        await poll


async def test_even_what_the_sdk_raises_is_one_error(
    keyset: Keyset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its rare exceptions leave like all the others; here, that of a timeout with a fraction."""
    monkeypatch.setattr(endpoints, "REQUEST_SECONDS", 0.5)
    async with Client(keyset) as client:
        with pytest.raises(PubNubError, match=r"no answer \(AssertionError\)"):
            await client.time()


async def test_a_timeout_of_the_caller_works(server: ScriptedPubNub, client: Client) -> None:
    """``asyncio.timeout`` and ``wait_for`` end a poll, and its connection with it."""
    server.script(Reply(hangs=True))

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await client.subscribe(["room"], [], LATER)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(client.subscribe(["room"], [], LATER), 0.05)

    await wait_until(lambda: server.waiting == 0 and server.open_connections == 0)


async def test_a_cancelled_poll_is_cancelled(server: ScriptedPubNub, client: Client) -> None:
    """In the middle of its wait, and nothing of it stays open."""
    server.script(Reply(hangs=True))
    poll = asyncio.create_task(client.subscribe(["room"], [], LATER))
    await wait_until(lambda: server.waiting == 1)

    poll.cancel()
    await asyncio.wait({poll})

    assert poll.cancelled()
    await wait_until(lambda: server.open_connections == 0)


async def test_a_task_group_ends_its_polls(server: ScriptedPubNub, client: Client) -> None:
    """When one of its tasks fails, the polls beside it do not keep it waiting."""
    server.script(Reply(hangs=True))

    async def fail() -> None:
        await wait_until(lambda: server.waiting == 2)
        raise LookupError("the other task")

    with pytest.raises(ExceptionGroup) as caught:  # noqa: PT012 - the group is what raises
        async with asyncio.TaskGroup() as group:
            polls = [group.create_task(client.subscribe(["room"], [], LATER)) for _ in range(2)]
            group.create_task(fail())

    assert caught.group_contains(LookupError)
    assert all(poll.cancelled() for poll in polls)


async def test_a_task_already_cancelled_asks_nothing_more(
    server: ScriptedPubNub, client: Client
) -> None:
    """A cancellation asked for before the request began is not lost in it."""
    server.script(answer("17600000000000002"))

    async def cancel_itself_and_ask() -> None:
        task = asyncio.current_task()
        assert task
        task.cancel()
        await client.subscribe(["room"], [], LATER)

    task = asyncio.create_task(cancel_itself_and_ask())
    await asyncio.wait({task})

    assert task.cancelled()


async def test_a_cancelled_task_may_still_ask(server: ScriptedPubNub, client: Client) -> None:
    """On its way out, that is: the cancellation it has already seen does not end its last request."""
    server.script(json_reply([17600000000000002]))

    has_begun = asyncio.Event()

    async def ask_on_the_way_out() -> str:
        has_begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return await client.time()
        raise AssertionError

    task = asyncio.create_task(ask_on_the_way_out())
    await has_begun.wait()
    task.cancel()

    assert await task == "17600000000000002"


async def test_history_runs_beside_many_polls(server: ScriptedPubNub, client: Client) -> None:
    """120 of them, each with its own connection; afterwards none is left."""
    server.script(Reply(hangs=True), under="/v2/subscribe")
    server.script(json_reply({"status": 200, "data": []}), under="/v1/message-actions")
    polls = [asyncio.create_task(client.subscribe([f"room-{n}"], [], LATER)) for n in range(120)]
    await wait_until(lambda: server.waiting == 120)

    assert await client.message_actions("room") == Page((), None)

    for poll in polls:
        poll.cancel()
    await asyncio.wait(polls)
    assert all(poll.cancelled() for poll in polls)
    await wait_until(lambda: server.waiting == 0)


async def test_a_full_client_says_so(
    server: ScriptedPubNub, keyset: Keyset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rather than wait for ever for a connection; here, not at all."""
    monkeypatch.setattr(endpoints, "CONNECT_SECONDS", 0)
    server.script(Reply(hangs=True))
    async with Client(keyset, connections=1) as client, asyncio.TaskGroup() as group:
        poll = group.create_task(client.subscribe(["room"], [], LATER))
        await server.asked(1)

        with pytest.raises(PubNubError, match="every connection of this client is in use"):
            await client.time()
        poll.cancel()


async def test_closing_ends_what_is_under_way(server: ScriptedPubNub, keyset: Keyset) -> None:
    """Polls end with an error, later requests are refused, no connection stays; closing twice is closing once."""
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
    await wait_until(lambda: server.open_connections == 0)


async def test_a_client_never_used_leaves_nothing(keyset: Keyset) -> None:
    """No task and no event loop of its own: an unclosed one would be a warning, and so an error."""
    before = asyncio.all_tasks()

    async with Client(keyset):
        pass
    gc.collect()

    assert asyncio.all_tasks() == before


async def test_a_client_closed_unused_stays_closed(server: ScriptedPubNub, keyset: Keyset) -> None:
    """It does not open a connection after all."""
    client = Client(keyset)
    await client.close()

    with pytest.raises(PubNubError, match="the client is closed"):
        await client.time()
    assert server.requests == []


@pytest.mark.parametrize(
    ("unfit", "settings"),
    [
        (
            Keyset("sub-c", "tally", secret_key="sec-c"),
            "PUBNUB_SECRET_KEY needs PUBNUB_PUBLISH_KEY",
        ),
        (
            Keyset("sub-c", "tally", secret_key="sec-c", publish_key=""),
            "PUBNUB_SECRET_KEY needs PUBNUB_PUBLISH_KEY",
        ),
        (Keyset("sub-c", " "), "PUBNUB_USER_ID"),
        (Keyset("", "tally"), "PUBNUB_SUBSCRIBE_KEY"),
    ],
)
def test_a_keyset_that_cannot_work_is_refused(unfit: Keyset, settings: str) -> None:
    """At once, naming the settings to mend."""
    with pytest.raises(ConfigurationError, match=settings):
        Client(unfit)


class Encrypted:
    """Serves TLS with a certificate for some name, and answers what time it is; or accepts connections in silence."""

    def __init__(self, authority: trustme.CA, name: str, *, speaks: bool = True) -> None:
        self.accepted = asyncio.Event()
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER) if speaks else None
        if self._context:
            authority.issue_cert(name).configure_cert(self._context)

    @asynccontextmanager
    async def origin(self) -> AsyncIterator[str]:
        """Serve, and yield where."""
        server = await asyncio.start_server(self._answer, "127.0.0.1", 0, ssl=self._context)
        try:
            yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        finally:
            server.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted.set()
        with suppress(OSError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n[17600000000000002]")
        writer.close()


NOT_TRUSTED = ": no connection: the certificate is not to be trusted."


@pytest.mark.parametrize(
    ("is_known", "name", "answers"),
    [(True, "127.0.0.1", True), (False, "127.0.0.1", False), (True, "elsewhere.example", False)],
    ids=["whom this machine trusts", "a stranger", "somebody else"],
)
async def test_whoever_cannot_be_trusted_is_not_asked(
    keyset: Keyset,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    is_known: bool,
    name: str,
    answers: bool,
) -> None:
    """A certificate must come from an authority this machine knows, and be for the host that is asked."""
    authority, another = trustme.CA(), trustme.CA()
    (authority if is_known else another).cert_pem.write_to_path(tmp_path / "known.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "known.pem"))
    async with (
        Encrypted(authority, name).origin() as origin,
        Client(replace(keyset, origin=origin, tls=True)) as client,
    ):
        if answers:
            assert await client.time() == "17600000000000002"
            return
        with pytest.raises(PubNubError) as caught:
            await client.time()

    assert str(caught.value).endswith(NOT_TRUSTED)
    assert caught.value.status is None


async def test_encryption_that_never_begins_is_given_up(
    keyset: Keyset, monkeypatch: pytest.MonkeyPatch, passes: Passes
) -> None:
    """It is part of connecting, and takes no longer."""
    monkeypatch.setattr(endpoints, "CONNECT_SECONDS", 5)
    silent = Encrypted(trustme.CA(), "127.0.0.1", speaks=False)
    async with (
        silent.origin() as origin,
        Client(replace(keyset, origin=origin, tls=True)) as client,
    ):
        asking = asyncio.create_task(client.time())
        await silent.accepted.wait()

        passes(6)

        with pytest.raises(PubNubError, match=r": no connection in time\.$") as caught:
            await asking
    assert caught.value.status is None


@pytest.fixture
def open_loggers() -> Iterator[None]:
    """Open the loggers of the SDK as wide as an unlucky logging configuration would; put them back after."""
    loggers = [
        logging.getLogger(name) for name in ("pubnub", "httpx", "httpcore", "hpack", "aiohttp")
    ]
    before = [(logger.level, logger.propagate, logger.handlers) for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.DEBUG)
        logger.propagate, logger.handlers = True, []
    yield
    for logger, (level, propagate, handlers) in zip(loggers, before, strict=True):
        logger.setLevel(level)
        logger.propagate, logger.handlers = propagate, handlers


@every_request
@pytest.mark.parametrize("status", [200, 403, 429, 500])
async def test_no_secret_reaches_a_log_or_an_error(
    server: ScriptedPubNub,
    keyset: Keyset,
    open_loggers: None,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    ask: Ask,
    status: int,
) -> None:
    """Even at DEBUG, and even if PubNub repeats them: neither keys nor token nor signature nor URL."""
    caplog.set_level(logging.DEBUG)
    secrets = replace(
        keyset, publish_key="pub-canary", secret_key="sec-canary", auth_token="canary-token"
    )
    echo = f"no auth=x&signature=v2.abc for sec-canary pub-canary {SUBSCRIBE_KEY} canary-token at https://h/p"
    server.script(
        json_reply({"message": echo, "payload": {"channels": ["room"]}}, status),
        HTML,
        Reply(drops=True),
    )
    said = [repr(secrets).replace("publish_key='pub-canary'", "").replace(SUBSCRIBE_KEY, "")]
    async with Client(secrets) as client:
        for _ in range(3):
            try:
                await ask(client)
            except PubNubError as error:
                said.extend(traceback.format_exception(error))

    assert len(said) > 3
    everything = "\n".join([*said, caplog.text, *capfd.readouterr()])
    assert not [
        word
        for word in ("canary", "signature", "auth=", "://", SUBSCRIBE_KEY)
        if word in everything
    ]


async def test_a_refused_token_is_renewed_and_the_request_sent_again(
    server: ScriptedPubNub,
) -> None:
    """All who were refused with the old one try the new one once; from then on it is sent with everything."""
    both_asked = asyncio.Event()
    server.script(*[replace(json_reply(ACCESS_MANAGER, 403), after=both_asked)] * 2, answer("7"))
    tokens = iter(["new", "new"])
    keyset = Keyset(SUBSCRIBE_KEY, "tally", auth_token="old", origin=server.origin, tls=False)

    async with Client(keyset, renew=lambda: next(tokens)) as client:
        polls = asyncio.gather(*(client.subscribe(["room"], [], HANDSHAKE) for _ in range(2)))
        await server.asked(2)
        both_asked.set()
        assert [told.cursor.timetoken for told in await polls] == ["7", "7"]

    assert sorted(request.parameters["auth"] for request in server.requests) == [
        "new",
        "new",
        "old",
        "old",
    ]


@pytest.mark.parametrize("token", ["old", None])
async def test_a_refusal_stands_where_there_is_no_other_token(
    server: ScriptedPubNub, token: str | None
) -> None:
    """It is asked once, and not again and again."""
    server.script(json_reply(ACCESS_MANAGER, 403))
    keyset = Keyset(SUBSCRIBE_KEY, "tally", auth_token="old", origin=server.origin, tls=False)

    async with Client(keyset, renew=lambda: token) as client:
        with pytest.raises(ForbiddenError):
            await client.time()

    assert len(server.requests) == 1
