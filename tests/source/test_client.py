"""The client's requests: names, cursors, bounds, tokens, signatures, secrets."""

import asyncio
import base64
import hashlib
import hmac
import logging
import traceback
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from typing import Final
from urllib.parse import quote

import pytest

from tests.source.scripted import LATER, SUBSCRIBE_KEY, Reply, ScriptedPubNub, answer, json_reply
from tests.source.tokens import access_token
from worker.domain.position import HANDSHAKE, Cursor
from worker.errors import ConfigurationError, ForbiddenError, PubNubError
from worker.source.access_token import TokenEnd
from worker.source.client import Answer, Client, Keyset, Page
from worker.telemetry import metrics

Ask = Callable[[Client], Awaitable[object]]
ASKS: Final[dict[str, Ask]] = {
    "subscribe": lambda client: client.subscribe(["a room", "b"], ["a group", "b"], LATER),
    "message_actions": lambda client: client.message_actions("room"),
    "group_channels": lambda client: client.group_channels("g"),
    "time": lambda client: client.time(),
}
every_request = pytest.mark.parametrize("ask", ASKS.values(), ids=ASKS.keys())


async def test_a_handshake_asks_for_now(server: ScriptedPubNub, client: Client) -> None:
    """It has neither region nor heartbeat nor the event engine's flag."""
    server.script(answer("17600000000000001", region=7))

    received = await client.subscribe(["b", "a"], ["g"], HANDSHAKE)

    assert received == Answer(Cursor("17600000000000001", 7), 0)
    (request,) = server.requests
    assert request.path == f"/v2/subscribe/{SUBSCRIBE_KEY}/a,b/0"
    assert set(request.parameters) == {"tt", "channel-group", "uuid", "pnsdk"}
    assert (request.parameters["tt"], request.parameters["uuid"]) == ("0", "tally")


async def test_a_poll_carries_its_cursor_verbatim(server: ScriptedPubNub, client: Client) -> None:
    """A cursor without a region sends none."""
    server.script(answer("17600000000000002"))

    await client.subscribe(["room"], [], LATER)
    await client.subscribe(["room"], [], replace(LATER, region=0))

    sent = [(request.parameters["tt"], request.parameters.get("tr")) for request in server.requests]
    assert sent == [("17600000000000001", "12"), ("17600000000000001", None)]


async def test_a_lone_comma_polls_groups_alone(server: ScriptedPubNub, client: Client) -> None:
    """It stands for the channels."""
    server.script(answer("17600000000000002"))

    await client.subscribe([], ["g2", "g1"], LATER)

    assert server.requests[0].path == f"/v2/subscribe/{SUBSCRIBE_KEY}/,/0"
    assert server.requests[0].parameters["channel-group"] == "g1,g2"


@pytest.mark.parametrize(
    "name", ["a.b", "a b", "50%", "%2E%2E", "é", "👍", "a+b&c=d?e#f", "a/../b", "a.*", "...", "x\n"]
)
async def test_a_name_arrives_whole(server: ScriptedPubNub, client: Client, name: str) -> None:
    """It is percent-encoded once, in the path and in the query."""
    server.script(json_reply({"status": 200, "data": []}))
    server.script(answer("17600000000000002"), under="/v2/subscribe")

    await client.message_actions(name)
    await client.subscribe([name], [name], LATER)

    encoded = quote(name, safe="~")
    assert [request.path for request in server.requests] == [
        f"/v1/message-actions/{SUBSCRIBE_KEY}/channel/{encoded}",
        f"/v2/subscribe/{SUBSCRIBE_KEY}/{encoded}/0",
    ]
    assert server.requests[1].parameters["channel-group"] == name


@pytest.mark.parametrize("name", ["", ".", "..", "\ud83d"])
async def test_a_name_that_cannot_arrive_is_refused(
    server: ScriptedPubNub, client: Client, name: str
) -> None:
    """Dots would collapse the path. A lone surrogate has no bytes."""
    asks = (
        client.message_actions(name),
        client.group_channels(name),
        client.subscribe([name], ["g"], LATER),
        client.subscribe(["room"], [name], LATER),
    )
    for ask in asks:
        with pytest.raises(ConfigurationError, match="cannot be asked"):
            await ask
    assert server.requests == []


async def test_a_poll_without_names_is_refused(client: Client) -> None:
    """PubNub would get an empty channel."""
    with pytest.raises(ConfigurationError, match="at least one"):
        await client.subscribe([], [], LATER)


async def test_a_page_is_asked_for_with_bounds_and_limit(
    server: ScriptedPubNub, client: Client
) -> None:
    """The SDK alone would drop ``end`` and the limit."""
    server.script(json_reply({"status": 200, "data": [{"type": "a"}]}))

    page = await client.message_actions("room", start="9", end="1", limit=100)
    await client.message_actions("room")

    assert page == Page(({"type": "a"},), None)
    first, second = (request.parameters for request in server.requests)
    assert (first["start"], first["end"], first["limit"]) == ("9", "1", "100")
    assert (set(second) & {"start", "end"}, second["limit"]) == (set(), "100")


async def test_groups_and_the_clock_are_answered(server: ScriptedPubNub, client: Client) -> None:
    """A group has channels. The clock has a timetoken."""
    server.script(json_reply({"payload": {"channels": ["b", "a"]}}))
    server.script(json_reply([15800727359579289]), under="/time/0")

    assert await client.group_channels("g") == ("b", "a")
    assert await client.time() == "15800727359579289"

    group = f"/v1/channel-registration/sub-key/{SUBSCRIBE_KEY}/channel-group/g"
    assert server.requests[0].path == group


@pytest.mark.parametrize(
    ("reply", "status"),
    [
        (Reply(204), 204),
        (Reply(307), 307),
        (Reply(302, headers={"Location": "/elsewhere"}), 302),
        (Reply(200), 200),
        (Reply(200, b'{"t":'), 200),
        (Reply(200, b"{}"), 200),
        (Reply(503, b"<html>", {"Content-Type": "text/html"}), 503),
    ],
)
async def test_an_answer_without_success_is_an_error(
    server: ScriptedPubNub, client: Client, reply: Reply, status: int
) -> None:
    """It has the status. The SDK alone would call some of these a success."""
    server.script(reply)

    with pytest.raises(PubNubError, match=f"answered {status}") as caught:
        await client.time()

    assert (type(caught.value), caught.value.status) == (PubNubError, status)


async def test_a_new_token_is_used_from_then_on(server: ScriptedPubNub, keyset: Keyset) -> None:
    """Tokens and user ids arrive whole. Without a token, none is sent."""
    server.script(answer("17600000000000002"))
    async with Client(replace(keyset, auth_token="a+b/c==&d", user_id="tally & co")) as client:
        await client.subscribe(["room"], [], LATER)
        client.token.use("new")
        await client.subscribe(["room"], [], LATER)
        client.token.use(None)
        await client.subscribe(["room"], [], LATER)

    sent = [request.parameters.get("auth") for request in server.requests]
    assert sent == ["a+b/c==&d", "new", None]
    assert {request.parameters["uuid"] for request in server.requests} == {"tally & co"}


async def test_a_refused_token_is_renewed(server: ScriptedPubNub, keyset: Keyset) -> None:
    """Each refused request is sent once more with the new token."""
    both_sent = asyncio.Event()
    refusal = replace(json_reply({"message": "Forbidden"}, 403), after=both_sent)
    server.script(refusal, refusal, answer("7"))
    tokens = iter(["new", "new"])

    async with Client(replace(keyset, auth_token="old"), renew=lambda: next(tokens)) as client:
        polls = asyncio.gather(*(client.subscribe(["room"], [], HANDSHAKE) for _ in range(2)))
        await server.asked(2)
        both_sent.set()
        assert [received.cursor.timetoken for received in await polls] == ["7", "7"]

    sent = sorted(request.parameters["auth"] for request in server.requests)
    assert sent == ["new", "new", "old", "old"]


@pytest.mark.parametrize("token", ["old", None])
async def test_a_refusal_stands_without_another_token(
    server: ScriptedPubNub, keyset: Keyset, token: str | None
) -> None:
    """The request is not repeated."""
    server.script(json_reply({"message": "Forbidden"}, 403))

    async with Client(replace(keyset, auth_token="old"), renew=lambda: token) as client:
        with pytest.raises(ForbiddenError):
            await client.time()

    assert len(server.requests) == 1


@pytest.mark.parametrize("authorized", ["somebody", "reaction-tally", None])
async def test_a_token_of_another_user_is_named(
    server: ScriptedPubNub, keyset: Keyset, authorized: str | None
) -> None:
    """The refusal says both users. A token without a user is for all."""
    server.script(json_reply({"message": "Forbidden"}, 403))
    token = access_token(60, uuid=authorized)

    ours = replace(keyset, auth_token=token, user_id="reaction-tally")
    async with Client(ours) as client:
        with pytest.raises(ForbiddenError) as raised:
            await client.time()

    sentence = "The token is for the user 'somebody', and PUBNUB_USER_ID is 'reaction-tally'"
    assert (sentence in str(raised.value)) == (authorized == "somebody")
    assert raised.value.has_advice == (authorized == "somebody")


@every_request
async def test_a_secret_key_signs_each_request(
    server: ScriptedPubNub, keyset: Keyset, ask: Ask
) -> None:
    """The signature covers method, publish key, path and sorted parameters."""
    server.script(json_reply({}))
    signing = replace(
        keyset, publish_key="pub-c", secret_key="sec-c", auth_token="a+b", user_id="it's tally"
    )
    async with Client(signing) as client:
        with suppress(PubNubError):
            await ask(client)

    (request,) = server.requests
    signed = {name: quote(value, safe="") for name, value in sorted(request.parameters.items())}
    signature = signed.pop("signature")
    query = "&".join(f"{name}={value}" for name, value in signed.items()).replace("~", "%7E")
    text = f"GET\npub-c\n{request.path}\n{query}\n"
    digest = hmac.digest(b"sec-c", text.encode(), hashlib.sha256)
    assert signature == "v2." + base64.urlsafe_b64encode(digest).decode().rstrip("=")


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
    """Neither keys nor token nor signature nor URL, even if PubNub repeats them."""
    caplog.set_level(logging.DEBUG)
    secrets = replace(
        keyset, publish_key="pub-canary", secret_key="sec-canary", auth_token="canary-token"
    )
    echo = (
        f"no auth=x&signature=v2.abc for sec-canary pub-canary {SUBSCRIBE_KEY} "
        "canary-token at https://h/p"
    )
    server.script(
        json_reply({"message": echo, "payload": {"channels": ["room"]}}, status),
        Reply(503, b"<html>auth=canary-token</html>", {"Content-Type": "text/html"}),
        Reply(drops=True),
    )
    texts = [repr(secrets).replace("publish_key='pub-canary'", "").replace(SUBSCRIBE_KEY, "")]
    async with Client(secrets) as client:
        for _ in range(3):
            try:
                await ask(client)
            except PubNubError as error:
                texts.extend(traceback.format_exception(error))

    assert len(texts) > 3
    everything = "\n".join([*texts, caplog.text, *capfd.readouterr()])
    canaries = ("canary", "signature", "auth=", "://", SUBSCRIBE_KEY)
    assert not [word for word in canaries if word in everything]


@pytest.mark.parametrize(
    ("old", "new", "is_used"),
    [
        (access_token(60), access_token(61), True),
        (access_token(60), access_token(59), False),
        (access_token(60), "opaque", False),
        (access_token(60), None, False),
        ("opaque", access_token(60), True),
        ("opaque", "another", False),
    ],
    ids=["longer", "shorter", "unreadable", "missing", "readable", "both-unreadable"],
)
async def test_a_token_that_lasts_longer_is_used_at_once(
    server: ScriptedPubNub, keyset: Keyset, old: str, new: str | None, is_used: bool
) -> None:
    """Any other one waits for a refusal. The metric is of the token in use."""
    server.script(json_reply([17600000000000002]))
    async with Client(replace(keyset, auth_token=old), renew=lambda: new) as client:
        await client.token.renew()

        used = (new if is_used else old) or ""
        assert client.token.end == TokenEnd.of(used)
        assert measured_end() == TokenEnd.of(used).timestamp


async def test_a_client_without_a_token_has_no_end(client: Client) -> None:
    """The metric is 0."""
    await client.token.renew()

    assert client.token.end is None
    assert measured_end() == 0


def measured_end() -> float:
    """Return when the token in use ends, as Prometheus reads it."""
    (metric,) = metrics.token_expires.collect()
    return metric.samples[0].value
