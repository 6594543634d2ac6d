"""The mistakes of the unmodified SDK, one a test.

A test that fails after an upgrade of ``pubnub`` is good news. Its
docstring says which of our corrections can go then.
"""

import asyncio
import logging
from collections.abc import Iterator
from contextlib import closing
from types import SimpleNamespace
from typing import Any

import h2.config
import h2.connection
import h2.events
import httpx
import pytest
from pubnub.endpoints.message_actions.get_message_actions import GetMessageActions
from pubnub.endpoints.pubsub.subscribe import Subscribe
from pubnub.enums import PNStatusCategory
from pubnub.exceptions import PubNubAsyncioException
from pubnub.models.consumer.message_actions import PNMessageAction
from pubnub.models.server.subscribe import SubscribeMessage
from pubnub.workers import BaseMessageWorker

from tests.source.scripted import (
    SUBSCRIBE_KEY,
    Reply,
    ScriptedPubNub,
    answer,
    json_reply,
    one_authority,
    sdk,
)
from tests.waiting import wait_until

HTML = Reply(502, b"<html>Bad Gateway</html>", {"Content-Type": "text/html"})


@pytest.fixture(autouse=True, scope="module")
def trusted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Trust one authority."""
    with one_authority(tmp_path_factory):
        yield


def poll(pubnub: Any, *channels: str, timetoken: int = 5) -> Any:
    """Return a poll, ready for ``.future()``."""
    return Subscribe(pubnub).channels(list(channels or ("room",))).timetoken(timetoken)


async def test_a_listener_cannot_tell_added_from_removed(server: ScriptedPubNub) -> None:
    """If it could, a listener might replace ``Poller``."""
    data = {"type": "t", "value": "v", "actionTimetoken": "4", "messageTimetoken": "1"}
    announced: list[Any] = []
    async with sdk(server.origin) as pubnub:
        worker = BaseMessageWorker(pubnub)
        worker._listener_manager = SimpleNamespace(announce_message_action=announced.append)

        for event in ("added", "removed"):
            payload = {"source": "actions", "version": "1.0", "event": event, "data": data}
            message = {"a": "1", "f": 0, "e": 3, "i": "ana", "k": "k", "c": "room", "d": payload}
            message["p"] = {"t": "5", "r": 4}
            worker._process_incoming_payload(SubscribeMessage.from_json(message))

    added, removed = map(vars, announced)
    assert added == removed


async def test_get_actions_drops_end_and_the_default_limit(server: ScriptedPubNub) -> None:
    """If fixed, ``Actions.custom_params`` can go."""
    server.script(json_reply({"status": 200, "data": []}))
    async with sdk(server.origin) as pubnub:
        await GetMessageActions(pubnub, "room", "9", "1", limit=100).future()
        await GetMessageActions(pubnub, "room", limit=99).future()

    bounded, limited = (asked.parameters for asked in server.requests)
    assert bounded["start"] == "9"
    assert not {"end", "limit"} & set(bounded)
    assert limited["limit"] == "99"


async def test_get_actions_hides_where_to_go_on(server: ScriptedPubNub) -> None:
    """If ``more`` were public, ``read_page`` could use the SDK's result."""
    more = {"url": "/v1/…", "start": "5", "limit": 2}
    server.script(json_reply({"status": 200, "data": [], "more": more}))
    async with sdk(server.origin) as pubnub:
        envelope = await GetMessageActions(pubnub, "room").future()

    assert set(vars(envelope.result)) == {"_result", "actions"}
    assert envelope.result._result["more"] == envelope.status.original_response["more"] == more


@pytest.mark.parametrize(
    "body", [{}, [1, 2], {"data": [{"type": "reaction"}]}], ids=["object", "list", "partial"]
)
async def test_get_actions_fails_inside_on_odd_bodies(server: ScriptedPubNub, body: object) -> None:
    """If fixed, ``Transport`` can let the SDK build its result."""
    server.script(json_reply(body))
    async with sdk(server.origin) as pubnub:
        error = await GetMessageActions(pubnub, "room").future()

    assert isinstance(error.value(), KeyError | TypeError)
    assert error.status.status_code is None


async def test_a_group_of_odd_shape_reads_as_empty(server: ScriptedPubNub) -> None:
    """If fixed, ``read_channels`` can use the SDK's result."""
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
    """If they were raised, with the status of HTML pages, ``send`` gets simpler."""
    server.script(reply)
    async with sdk(server.origin) as pubnub:
        error = await poll(pubnub).future()

    assert isinstance(error, PubNubAsyncioException)
    assert error.is_error()
    assert (error.status.category, error.status.status_code) == (category, status)


async def test_cancellation_is_swallowed(server: ScriptedPubNub) -> None:
    """If fixed, ``send`` need not count cancellations.

    Its count makes timeouts, ``wait_for`` and task groups work.
    """
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
    """End a timeout as soon as the server is asked."""
    await server.asked(1)
    limit.reschedule(asyncio.get_running_loop().time())


@pytest.mark.parametrize("body", [b"{}", b"[1,2]", b""], ids=["object", "list", "nothing"])
async def test_a_poll_takes_any_body_for_success(server: ScriptedPubNub, body: bytes) -> None:
    """If fixed, ``read_answer`` can trust the shape."""
    server.script(Reply(200, body))
    async with sdk(server.origin) as pubnub:
        envelope = await poll(pubnub).future()

    assert not envelope.is_error()
    assert not envelope.status.is_error()


@pytest.mark.parametrize("status", [204, 307])
async def test_other_statuses_count_as_success(server: ScriptedPubNub, status: int) -> None:
    """If fixed, ``Client`` need not check the status."""
    server.script(Reply(status))
    async with sdk(server.origin) as pubnub:
        assert not (await poll(pubnub).future()).is_error()


async def test_a_stored_action_without_event_is_an_error(server: ScriptedPubNub) -> None:
    """If it were a success, the demo's users need not check for a 207."""
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
    """If fixed, ``POLL_SECONDS`` can have fractions."""
    async with sdk(server.origin, **{setting: 1.5}) as pubnub:
        with pytest.raises(AssertionError):
            await poll(pubnub).future()


async def test_without_subscriptions_no_poll_works(server: ScriptedPubNub) -> None:
    """If fixed, ``enable_subscribe`` can be off, without ``NoSubscriptions``."""
    async with sdk(server.origin, enable_subscribe=False) as pubnub:
        error = await poll(pubnub).future()

    assert isinstance(error.value(), AttributeError)
    assert server.requests == []


async def test_a_secret_key_alone_cannot_sign(server: ScriptedPubNub) -> None:
    """If fixed, a secret key needs no publish key."""
    async with sdk(server.origin, secret_key="sec-c-scripted") as pubnub:
        error = await poll(pubnub).future()

    assert isinstance(error.value(), TypeError)
    assert server.requests == []


async def test_a_hundred_and_first_poll_finds_no_connection(server: ScriptedPubNub) -> None:
    """If there were more connections, only speed is a reason for ``Transport``."""
    server.script(Reply(hangs=True))
    async with sdk(server.origin) as pubnub, asyncio.TaskGroup() as polls:
        tasks = [polls.create_task(poll(pubnub).future()) for _ in range(100)]
        await server.asked(100)

        hasty = poll(pubnub)
        hasty.connect_timeout = lambda: 0
        error = await hasty.future()
        for task in tasks:
            task.cancel()

    assert type(error.value()).__name__ == "PoolTimeout"
    assert len(server.requests) == 100


class SilentAtFirst(asyncio.Protocol):
    """An HTTP/2 server that answers all requests but the first."""

    def __init__(self) -> None:
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
        self.begun: list[int] = []
        self.reset: list[int] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin the connection."""
        assert isinstance(transport, asyncio.WriteTransport)
        self.transport = transport
        self.h2.initiate_connection()
        self.transport.write(self.h2.data_to_send())

    def data_received(self, data: bytes) -> None:
        """Note the streams that begin, and those that are reset."""
        for event in self.h2.receive_data(data):
            if isinstance(event, h2.events.StreamReset):
                self.reset.append(event.stream_id)
            if isinstance(event, h2.events.RequestReceived):
                self.begun.append(event.stream_id)
                if len(self.begun) > 1:
                    self.h2.send_headers(event.stream_id, [(":status", "200")], end_stream=True)
        self.transport.write(self.h2.data_to_send())


async def test_a_cancelled_http2_request_keeps_its_stream() -> None:
    """If it were reset, polls could share HTTP/2 connections."""
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
    """If fixed, ``NoSubscriptions`` can go once no poll sends ``ee``."""
    server.script(answer("17600000000000001"))
    async with sdk(server.origin) as pubnub:
        await poll(pubnub).future()
        await pubnub.stop()
        with closing(pubnub._subscription_manager.loop) as loop:
            assert not loop.is_closed()

    assert server.requests[0].parameters["ee"] == "1"


async def test_a_configuration_that_can_change_warns(server: ScriptedPubNub) -> None:
    """If it did not, ``disable_config_locking`` can go."""
    with pytest.warns(DeprecationWarning, match="Mutable config"):
        async with sdk(server.origin, disable_config_locking=True):
            pass


async def test_user_id_and_token_are_sent_unencoded(server: ScriptedPubNub) -> None:
    """If fixed, ``Encoded`` can go."""
    server.script(answer("17600000000000001"))
    async with sdk(server.origin, user_id="a&b", auth_key="c+d") as pubnub:
        await poll(pubnub).future()

    assert "&uuid=a&b&auth=c+d" in server.requests[0].target


async def test_signed_group_names_are_encoded_twice(
    server: ScriptedPubNub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If fixed, the parameters of ``Poll`` can go."""
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
    """If fixed, ``_sendable`` need not refuse such names."""
    server.script(json_reply({"status": 200, "data": []}))
    async with sdk(server.origin) as pubnub:
        await GetMessageActions(pubnub, "..").future()

    assert server.requests[0].path == f"/v1/message-actions/{SUBSCRIBE_KEY}"


async def test_the_loggers_write_the_token(
    server: ScriptedPubNub, open_loggers: None, caplog: pytest.LogCaptureFixture
) -> None:
    """If all are fixed, ``silence`` can go."""
    caplog.set_level(logging.DEBUG)
    server.script(answer("17600000000000001"))
    async with sdk(server.origin, auth_key="canary") as pubnub:
        await poll(pubnub).future()

    writers = {entry.name for entry in caplog.records if "auth=canary" in entry.getMessage()}
    assert writers >= {"pubnub", "httpx"}
