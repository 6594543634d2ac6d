"""What the unmodified SDK does today, trap by trap.

A test that fails here after an upgrade of ``pubnub`` is good news: its docstring says what of ours may go.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing
from typing import Any

import h2.config
import h2.connection
import h2.events
import httpx
import pytest
import trustme
from pubnub.callbacks import SubscribeCallback
from pubnub.endpoints.message_actions.get_message_actions import GetMessageActions
from pubnub.endpoints.pubsub.subscribe import Subscribe
from pubnub.enums import PNReconnectionPolicy, PNStatusCategory
from pubnub.exceptions import PubNubAsyncioException
from pubnub.managers import ListenerManager
from pubnub.models.consumer.message_actions import PNMessageAction
from pubnub.models.server.subscribe import SubscribeMessage
from pubnub.pnconfiguration import PNConfiguration
from pubnub.pubnub_asyncio import PubNubAsyncio
from pubnub.request_handlers.async_httpx import AsyncHttpxRequestHandler
from pubnub.workers import BaseMessageWorker

from tests.redis_server import free_port
from tests.source.scripted import (
    SUBSCRIBE_KEY,
    Reply,
    ScriptedPubNub,
    answer,
    json_reply,
    wait_until,
)

HTML = Reply(502, b"<html>Bad Gateway</html>", {"Content-Type": "text/html"})
MESSAGE = {
    "a": "1",
    "f": 0,
    "p": {"t": "17600000000000005", "r": 4},
    "k": SUBSCRIBE_KEY,
    "c": "room",
    "d": "hello",
}


@pytest.fixture(autouse=True, scope="module")
def one_authority(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Trust one authority: each SDK reads all of them when it is made, which takes longer than most of these tests."""
    known = tmp_path_factory.mktemp("authority") / "known.pem"
    trustme.CA().cert_pem.write_to_path(known)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSL_CERT_FILE", str(known))
        yield


@pytest.fixture
async def server() -> AsyncIterator[ScriptedPubNub]:
    """Serve a script."""
    async with ScriptedPubNub() as server:
        yield server


@asynccontextmanager
async def sdk(origin: str, **settings: object) -> AsyncIterator[Any]:
    """Yield the SDK as its makers ship it, talking to the script."""
    config = PNConfiguration()
    config.subscribe_key, config.user_id, config.origin, config.ssl = (
        SUBSCRIBE_KEY,
        "tester",
        origin,
        False,
    )
    config.disable_config_locking = False  # else a DeprecationWarning, see below
    for name, value in settings.items():
        setattr(config, name, value)
    pubnub = PubNubAsyncio(config, custom_event_loop=asyncio.get_running_loop())
    try:
        yield pubnub
    finally:
        await pubnub.close_session()
        if pubnub._subscription_manager:
            pubnub._subscription_manager.stop()
            pubnub._subscription_manager.loop.close()


def poll(pubnub: Any, *channels: str, timetoken: int = 5) -> Any:
    """Return a poll, ready for ``.future()``."""
    return Subscribe(pubnub).channels(list(channels or ("room",))).timetoken(timetoken)


def action_event(event: str) -> dict[str, Any]:
    """Return a message action as PubNub delivers it."""
    facts = {
        "type": "reaction",
        "value": "👍",
        "actionTimetoken": "17600000000000004",
        "messageTimetoken": "1760",
    }
    return MESSAGE | {
        "e": 3,
        "i": "ana",
        "d": {"source": "actions", "version": "1.0", "event": event, "data": facts},
    }


class Listener(SubscribeCallback):  # type: ignore[misc] # the SDK has no types
    """Keeps what it is told, and fails on demand."""

    def __init__(self) -> None:
        self.actions: list[Any] = []
        self.messages: list[Any] = []
        self.statuses: list[Any] = []

    def message_action(self, _pubnub: Any, message_action: Any) -> None:
        """Keep an action."""
        self.actions.append(message_action)

    def message(self, _pubnub: Any, message: Any) -> None:
        """Keep a message, unless it asks for a failure."""
        if message.message == "raise":
            raise LookupError("a listener's own mistake")
        self.messages.append(message)

    def status(self, _pubnub: Any, status: Any) -> None:
        """Keep a status."""
        self.statuses.append(status)


async def test_a_listener_cannot_tell_added_from_removed(server: ScriptedPubNub) -> None:
    """If it can one day, a listener becomes thinkable; until then ours must be the only subscriber."""
    listener = Listener()
    async with sdk(server.origin) as pubnub:
        worker = BaseMessageWorker(pubnub)
        worker._listener_manager = ListenerManager(pubnub)
        worker._listener_manager.add_listener(listener)

        for event in ("added", "removed"):
            worker._process_incoming_payload(SubscribeMessage.from_json(action_event(event)))

    added, removed = map(vars, listener.actions)
    assert added == removed


@pytest.mark.parametrize(
    "poison",
    [
        pytest.param({"not": "a message"}, id="malformed"),
        pytest.param(MESSAGE | {"e": 4, "d": {"message": "no file"}}, id="file-without-file"),
        pytest.param(MESSAGE | {"c": "room-pnpres"}, id="presence-channel"),
        pytest.param(MESSAGE | {"d": "raise"}, id="listener-raises"),
    ],
)
async def test_one_bad_message_ends_the_subscription(
    server: ScriptedPubNub, poison: dict[str, Any]
) -> None:
    """No status, no further poll, the cursor past the batch. Mended, it still could not hold its cursor back for us."""
    release, listener = asyncio.Event(), Listener()
    batch = answer("17600000000000009", poison, MESSAGE)
    server.script(
        answer("17600000000000001"), Reply(200, batch.body, after=release), Reply(hangs=True)
    )
    async with sdk(server.origin) as pubnub:
        pubnub.add_listener(listener)
        pubnub.subscribe().channels("room").execute()
        await server.asked(2)
        (receiving,) = (
            task for task in asyncio.all_tasks() if task.get_name() == "ReceiveMessagesEffect"
        )
        told = len(listener.statuses)

        release.set()
        await asyncio.wait({receiving})

        assert receiving.exception() is not None
        assert "ReceiveMessagesEffect" not in {
            task.get_name() for task in asyncio.all_tasks() if not task.done()
        }
        assert (
            pubnub._subscription_manager.event_engine.get_context().timetoken == "17600000000000009"
        )
        assert len(server.requests) == 2
        assert (listener.messages, listener.statuses[told:]) == ([], [])


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """Return settings that make the event engine reconnect at once."""
    monkeypatch.setattr("pubnub.managers.random.random", lambda: 0.0)
    return {"reconnect_policy": PNReconnectionPolicy.EXPONENTIAL, "reconnection_interval": 0}


async def test_a_reconnect_reads_its_batch_again(
    server: ScriptedPubNub, eager: dict[str, object]
) -> None:
    """The event engine keeps the old cursor after a reconnect; mended, it would still be the event engine."""
    server.script(
        answer("17600000000000001"),
        json_reply({}, 500),
        answer("17600000000000009", MESSAGE),
        Reply(hangs=True),
    )
    async with sdk(server.origin, **eager) as pubnub:
        pubnub.subscribe().channels("room").execute()
        await server.asked(4)

    assert [asked.parameters["tt"] for asked in server.requests] == [
        "0",
        *["17600000000000001"] * 3,
    ]


async def test_the_event_engine_gives_up_for_ever(
    server: ScriptedPubNub, eager: dict[str, object]
) -> None:
    """It stops after six retries, and a 403 is never access denied; if mended, it still would not name the channels."""
    server.script(
        json_reply({"message": "Forbidden", "payload": {"channels": ["room"]}, "status": 403}, 403)
    )
    listener = Listener()
    async with sdk(server.origin, **eager) as pubnub:
        pubnub.add_listener(listener)
        pubnub.subscribe().channels("room").execute()
        engine = pubnub._subscription_manager.event_engine
        await wait_until(lambda: engine.get_state_name() == "HandshakeFailedState")

    assert len(server.requests) == 1 + 6
    assert PNStatusCategory.PNAccessDeniedCategory not in {
        status.category for status in listener.statuses
    }


async def test_get_actions_drops_end_beside_start(server: ScriptedPubNub) -> None:
    """Mended: ``Actions.custom_params`` needs to send only the limit."""
    server.script(json_reply({"status": 200, "data": []}))
    async with sdk(server.origin) as pubnub:
        await GetMessageActions(pubnub, "room", "9", "1").future()

    asked = server.requests[0].parameters
    assert asked["start"] == "9"
    assert "end" not in asked


async def test_get_actions_never_sends_the_default_limit(server: ScriptedPubNub) -> None:
    """Mended: ``Actions.custom_params`` needs to send only ``start`` and ``end``."""
    server.script(json_reply({"status": 200, "data": []}))
    async with sdk(server.origin) as pubnub:
        await GetMessageActions(pubnub, "room", limit=100).future()
        await GetMessageActions(pubnub, "room", limit=99).future()

    assert [asked.parameters.get("limit") for asked in server.requests] == [None, "99"]


async def test_get_actions_hides_where_to_go_on(server: ScriptedPubNub) -> None:
    """With a public ``more`` our own reading of the body could stand on the SDK's result."""
    more = {"url": "/v1/…", "start": "5", "limit": 2}
    server.script(json_reply({"status": 200, "data": [], "more": more}))
    async with sdk(server.origin) as pubnub:
        envelope = await GetMessageActions(pubnub, "room").future()

    assert set(vars(envelope.result)) == {"_result", "actions"}
    assert envelope.result._result["more"] == envelope.status.original_response["more"] == more


@pytest.mark.parametrize("setter", ["limit", "start", "end"])
async def test_get_actions_wants_its_numbers_as_text(server: ScriptedPubNub, setter: str) -> None:
    """Mended: ``message_actions`` may hand its limit over as it is."""
    async with sdk(server.origin) as pubnub:
        with pytest.raises(AssertionError):
            getattr(GetMessageActions(pubnub, "room"), setter)(100)


@pytest.mark.parametrize(
    "body", [{}, [1, 2], {"data": [{"type": "reaction"}]}], ids=["object", "list", "partial"]
)
async def test_get_actions_fails_inside_on_odd_bodies(server: ScriptedPubNub, body: object) -> None:
    """Mended: ``Transport`` may let the SDK build its result."""
    server.script(json_reply(body))
    async with sdk(server.origin) as pubnub:
        error = await GetMessageActions(pubnub, "room").future()

    assert isinstance(error.value(), KeyError | TypeError)
    assert error.status.status_code is None


async def test_a_group_of_odd_shape_reads_as_empty(server: ScriptedPubNub) -> None:
    """Mended: ``group_channels`` could take the SDK's result; until then every channel would seem to have left."""
    server.script(json_reply([1, 2]))
    async with sdk(server.origin) as pubnub:
        envelope = await pubnub.list_channels_in_channel_group("g").future()

    assert envelope.result.channels == []


@pytest.mark.parametrize(
    ("reply", "category", "status"),
    [
        (json_reply({"message": "no"}, 403), PNStatusCategory.PNAccessDeniedCategory, 403),
        (json_reply({"message": "no"}, 400), PNStatusCategory.PNBadRequestCategory, 400),
        (json_reply({"message": "no"}, 404), PNStatusCategory.PNUnknownCategory, 404),
        (json_reply({"message": "no"}, 429), PNStatusCategory.PNUnknownCategory, 429),
        (json_reply({"message": "no"}, 503), PNStatusCategory.PNUnknownCategory, 503),
        (HTML, PNStatusCategory.PNUnknownCategory, None),
        (Reply(200, b'{"t":'), PNStatusCategory.PNUnknownCategory, None),
        (Reply(drops=True), PNStatusCategory.PNUnknownCategory, None),
        (Reply(drops_halfway=True), PNStatusCategory.PNUnknownCategory, None),
    ],
    ids=["403", "400", "404", "429", "503", "html", "malformed", "dropped", "dropped-halfway"],
)
async def test_errors_are_returned_with_their_category(
    server: ScriptedPubNub, reply: Reply, category: object, status: int | None
) -> None:
    """Raised instead, or with the status of an HTML page: ``_ask`` gets simpler, and ``Transport`` may read less."""
    server.script(reply)
    async with sdk(server.origin) as pubnub:
        error = await poll(pubnub).future()

    assert isinstance(error, PubNubAsyncioException)
    assert error.is_error()
    assert (error.status.category, error.status.status_code) == (category, status)


@pytest.mark.parametrize(
    "reply", [Reply(hangs=True), Reply(drips=True)], ids=["silent", "too-slow"]
)
async def test_an_answer_that_takes_too_long_is_returned_as_a_timeout(
    server: ScriptedPubNub, monkeypatch: pytest.MonkeyPatch, reply: Reply
) -> None:
    """Raised instead: ``_ask`` gets simpler. The SDK looks at the wall clock, which is put forward here."""
    monkeypatch.setattr(AsyncHttpxRequestHandler, "WALL_CLOCK_CHECK_INTERVAL", 0.01)
    server.script(reply)
    async with sdk(server.origin) as pubnub:
        polling = asyncio.create_task(poll(pubnub).future())
        await server.asked(1)
        now = time.time()
        monkeypatch.setattr("pubnub.request_handlers.async_httpx.time.time", lambda: now + 3600)
        error = await polling

    assert isinstance(error, PubNubAsyncioException)
    assert (error.status.category, error.status.status_code) == (
        PNStatusCategory.PNTimeoutCategory,
        None,
    )


async def test_a_refused_connection_is_of_unknown_category() -> None:
    """With a category of its own, ``_lost`` need not look at what ``Wire`` raises."""
    async with sdk(f"127.0.0.1:{free_port()}") as pubnub:
        error = await poll(pubnub).future()

    assert (error.status.category, error.status.status_code) == (
        PNStatusCategory.PNUnknownCategory,
        None,
    )


async def test_a_poll_of_nothing_is_a_bad_request(server: ScriptedPubNub) -> None:
    """Returned like PubNub's own 400, so ``subscribe`` refuses it before it is sent."""
    async with sdk(server.origin) as pubnub:
        error = await Subscribe(pubnub).future()

    assert (error.status.category, error.status.status_code) == (
        PNStatusCategory.PNBadRequestCategory,
        None,
    )


async def test_cancellation_is_swallowed(server: ScriptedPubNub) -> None:
    """Mended: ``_uncancelled`` may go, which makes timeouts, ``wait_for`` and task groups work today."""
    server.script(Reply(hangs=True))
    async with sdk(server.origin) as pubnub, asyncio.timeout(None) as timeout:
        polling = asyncio.ensure_future(expire(timeout, server))
        error = await poll(pubnub).future()
        await polling
    assert timeout.expired()

    async with sdk(server.origin) as pubnub:
        waited = await asyncio.wait_for(poll(pubnub).future(), 0.05)

        task = asyncio.create_task(poll(pubnub, "last").future())
        await wait_until(lambda: any("/last/" in asked.path for asked in server.requests))
        task.cancel()
        await asyncio.wait({task})

    assert not task.cancelled()
    categories = {reply.status.category for reply in (error, waited, task.result())}
    assert categories == {PNStatusCategory.PNCancelledCategory}


async def expire(limit: asyncio.Timeout, server: ScriptedPubNub) -> None:
    """Let a limit of time end as soon as the server is asked."""
    await server.asked(1)
    limit.reschedule(asyncio.get_running_loop().time())


@pytest.mark.parametrize("body", [b"{}", b"[1,2]", b""], ids=["object", "list", "nothing"])
async def test_a_poll_takes_any_body_for_success(server: ScriptedPubNub, body: bytes) -> None:
    """Mended: ``_answer`` may trust the shape."""
    server.script(Reply(200, body))
    async with sdk(server.origin) as pubnub:
        envelope = await poll(pubnub).future()

    assert not envelope.is_error()
    assert not envelope.status.is_error()


@pytest.mark.parametrize("status", [204, 307])
async def test_other_statuses_count_as_success(server: ScriptedPubNub, status: int) -> None:
    """Mended: what the SDK calls a success may be one."""
    server.script(Reply(status))
    async with sdk(server.origin) as pubnub:
        assert not (await poll(pubnub).future()).is_error()


async def test_a_stored_action_without_event_is_an_error(server: ScriptedPubNub) -> None:
    """207 means stored; whoever adds actions must not add again. Our reader only has to survive it."""
    server.script(
        json_reply(
            {"status": 207, "data": {}, "error": {"message": "Stored but failed to publish"}}, 207
        )
    )
    action = PNMessageAction().create(type="reaction", value="👍", message_timetoken="1760")
    async with sdk(server.origin) as pubnub:
        error = await pubnub.add_message_action("room", action).future()

    assert (error.is_error(), error.status.status_code) == (True, 207)


@pytest.mark.parametrize("setting", ["subscribe_request_timeout", "connect_timeout"])
async def test_a_timeout_with_a_fraction_raises(server: ScriptedPubNub, setting: str) -> None:
    """Mended: ``POLL_SECONDS`` and its kin may have fractions. Note that here ``.future()`` does raise."""
    async with sdk(server.origin, **{setting: 1.5}) as pubnub:
        with pytest.raises(AssertionError):
            await poll(pubnub).future()


async def test_without_subscriptions_no_poll_works(server: ScriptedPubNub) -> None:
    """Mended: ``enable_subscribe`` may be off, and ``NoSubscriptions`` may go."""
    async with sdk(server.origin, enable_subscribe=False) as pubnub:
        error = await poll(pubnub).future()

    assert isinstance(error.value(), AttributeError)
    assert server.requests == []


async def test_a_secret_key_alone_cannot_sign(server: ScriptedPubNub) -> None:
    """Mended: the publish key may be left out beside a secret key, and ``_check`` shrinks."""
    async with sdk(server.origin, secret_key="sec-c-scripted") as pubnub:
        error = await poll(pubnub).future()

    assert isinstance(error.value(), TypeError)
    assert server.requests == []


class Hasty(Subscribe):  # type: ignore[misc] # the SDK has no types
    """A poll that does not wait for room."""

    def connect_timeout(self) -> int:
        """Wait for no connection."""
        return 0


async def test_the_hundred_and_first_poll_finds_no_room(server: ScriptedPubNub) -> None:
    """With room for more by default one reason for ``Transport`` is gone; its speed is the other."""
    server.script(Reply(hangs=True))
    async with sdk(server.origin) as pubnub, asyncio.TaskGroup() as polls:
        tasks = [polls.create_task(poll(pubnub).future()) for _ in range(100)]
        await server.asked(100)

        error = await Hasty(pubnub).channels(["room"]).timetoken(5).future()
        for task in tasks:
            task.cancel()

    assert type(error.value()).__name__ == "PoolTimeout"
    assert len(server.requests) == 100


class SilentAtFirst(asyncio.Protocol):
    """An HTTP/2 server without TLS that leaves its first request open and answers the others."""

    def __init__(self) -> None:
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
        self.begun: list[int] = []
        self.reset: list[int] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Greet."""
        assert isinstance(transport, asyncio.WriteTransport)
        self.transport = transport
        self.h2.initiate_connection()
        self.transport.write(self.h2.data_to_send())

    def data_received(self, data: bytes) -> None:
        """Note what begins and what is reset."""
        for event in self.h2.receive_data(data):
            if isinstance(event, h2.events.StreamReset):
                self.reset.append(event.stream_id)
            if isinstance(event, h2.events.RequestReceived):
                self.begun.append(event.stream_id)
                if len(self.begun) > 1:
                    self.h2.send_headers(event.stream_id, [(":status", "200")], end_stream=True)
        self.transport.write(self.h2.data_to_send())


async def test_a_cancelled_http2_request_keeps_its_stream() -> None:
    """Mended (a StreamReset arrives): HTTP/2 is thinkable again, and polls that share connections."""
    silent = SilentAtFirst()
    server = await asyncio.get_running_loop().create_server(lambda: silent, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    async with (
        server,
        httpx.AsyncClient(transport=httpx.AsyncHTTPTransport(http1=False, http2=True)) as client,
    ):
        cancelled = asyncio.create_task(client.get(url))
        await wait_until(lambda: silent.begun == [1])
        cancelled.cancel()
        await asyncio.wait({cancelled})

        assert (await client.get(url)).status_code == 200
        assert (silent.begun, silent.reset, silent.h2.open_inbound_streams) == ([1, 3], [], 1)


async def test_the_default_subscription_manager_leaks_a_loop(server: ScriptedPubNub) -> None:
    """Mended: ``NoSubscriptions`` may go, unless the manager still sends ``ee`` with each poll."""
    server.script(answer("17600000000000001"))
    async with sdk(server.origin) as pubnub:
        await poll(pubnub).future()
        await pubnub.stop()
        with closing(pubnub._subscription_manager.loop) as loop:
            assert not loop.is_closed()

    assert server.requests[0].parameters["ee"] == "1"


async def test_a_configuration_that_can_change_warns(server: ScriptedPubNub) -> None:
    """When the warning goes, so may ``disable_config_locking`` in ``configuration``."""
    with pytest.warns(DeprecationWarning, match="Mutable config"):
        async with sdk(server.origin, disable_config_locking=True):
            pass


async def test_user_id_and_token_are_sent_unencoded(server: ScriptedPubNub) -> None:
    """Mended: ``Encoded`` may go."""
    server.script(answer("17600000000000001"))
    async with sdk(server.origin, user_id="a&b", auth_key="c+d") as pubnub:
        await poll(pubnub).future()

    assert "&uuid=a&b&auth=c+d" in server.requests[0].target


async def test_signed_group_names_are_encoded_twice(
    server: ScriptedPubNub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Mended: ``Poll`` may leave the parameters of groups to the SDK."""
    signed: list[str] = []

    def sign(_secret: str, text: str) -> str:
        signed.append(text)
        return "signature"

    monkeypatch.setattr("pubnub.utils.sign_sha256", sign)
    server.script(answer("17600000000000001"))
    async with sdk(server.origin, publish_key="pub-c", secret_key="sec-c") as pubnub:
        await Subscribe(pubnub).channel_groups(["a group"]).future()

    assert "channel-group=a%20group&" in server.requests[0].target
    assert "channel-group=a%2520group&" in signed[0]


async def test_a_channel_of_dots_collapses_the_path(server: ScriptedPubNub) -> None:
    """Mended: ``_faithful`` need not refuse such names."""
    server.script(json_reply({"status": 200, "data": []}))
    async with sdk(server.origin) as pubnub:
        await GetMessageActions(pubnub, "..").future()

    assert server.requests[0].path == f"/v1/message-actions/{SUBSCRIBE_KEY}"


async def test_the_loggers_write_the_token(server: ScriptedPubNub, loud: list[str]) -> None:
    """Mended in every one of them: ``silence`` may go."""
    server.script(answer("17600000000000001"))
    async with sdk(server.origin, auth_key="canary") as pubnub:
        await poll(pubnub).future()

    assert {line.split(" ", 1)[0] for line in loud if "auth=canary" in line} >= {"pubnub", "httpx"}


@pytest.fixture
def loud(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Yield the lines of the SDK's loggers, opened wide."""
    lines: list[str] = []
    listening = logging.Handler(logging.DEBUG)
    monkeypatch.setattr(
        listening, "emit", lambda record: lines.append(f"{record.name} {record.getMessage()}")
    )
    loggers = {logger: logger.level for logger in map(logging.getLogger, ("pubnub", "httpx"))}
    for logger in loggers:
        monkeypatch.setattr(logger, "handlers", [listening])
        monkeypatch.setattr(logger, "propagate", False)
        monkeypatch.setattr(logger, "disabled", False)
        logger.setLevel(logging.DEBUG)
    yield lines
    for logger, level in loggers.items():
        logger.setLevel(level)
