"""Access Manager: PubNub's *Add action* page row by row, to plain HTTP and to the unmodified SDK.

Where a comment says *words unknown*, no page and no recorded answer shows PubNub's own words.
Those tests look at the status alone.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import pytest
from pubnub.models.consumer.v3.channel import Channel
from pubnub.models.consumer.v3.group import Group
from yarl import URL

from tests.emulator.clients import KEY, MESSAGE, Got, Http, reaction
from tests.source.scripted import sdk
from worker.emulator import DELETE, READ, WRITE, Emulator, Grant
from worker.emulator.signatures import signature

PUBLISH_KEY: Final = "pub-c-test"
SECRET_KEY: Final = "sec-c-test"
KEYS: Final = (PUBLISH_KEY, SECRET_KEY)
ROOM: Final = f"/v1/message-actions/{KEY}/channel/room"
ADD: Final = f"{ROOM}/message/{MESSAGE}"
BODY: Final = b'{"type":"reaction","value":"\xf0\x9f\x91\x8d"}'
DENIED: Final = (
    "Supplied authorization key does not have the permissions required to perform this operation."
)
ALL: Final = READ | WRITE | DELETE
SECONDS: Final = 10_000_000


@pytest.fixture
def guarded(emulator: Emulator) -> Emulator:
    """Access Manager is on."""
    emulator.state.access.switch_on(*KEYS)
    return emulator


@dataclass(frozen=True, slots=True)
class Post:
    """One addition by plain HTTP: what is signed, and what is sent."""

    emulator: Emulator
    http: Http

    async def signed(
        self, *, off: int = 0, keys: tuple[str, str] = KEYS, sent: bytes = BODY, user: str = "ana"
    ) -> Got:
        """Sign, with a timestamp so many seconds off, and send another body than was signed."""
        now = self.emulator.state.time.now() // SECONDS
        query = {"uuid": user, "timestamp": str(now + off)}
        query["signature"] = signature(("POST", ADD), query, BODY, keys)
        return await self.query(query, sent)

    async def query(self, query: Mapping[str, str], body: bytes = BODY) -> Got:
        """Send with this query."""
        path = URL(ADD).with_query(query).raw_path_qs
        return await self.http.ask("POST", path, body)

    async def with_token(self, user: str = "ana", minutes: int = 60, **granted: Any) -> Got:
        """Send with a token that permits this."""
        token = self.emulator.state.access.grant(Grant(minutes=minutes, **granted))
        return await self.query({"uuid": user, "auth": token})


@pytest.fixture
def post(guarded: Emulator, http: Http) -> Post:
    """Additions to an emulator with Access Manager."""
    return Post(guarded, http)


def denied(got: Got) -> bool:
    """Tell whether this is the actions' 403 for a missing permission."""
    error = {"source": "actions", "message": DENIED}
    return (got.status, got.document) == (403, {"status": 403, "error": error})


# --- the page's answers -------------------------------------------------------------------------


async def test_a_signed_addition_is_stored(post: Post) -> None:
    """200, with the action."""
    assert (await post.signed()).status == 200


async def test_a_token_that_may_write_adds(post: Post) -> None:
    """By a channel's name, and by a pattern."""
    assert (await post.with_token(channels={"room": WRITE})).status == 200
    assert (await post.with_token("ben", channel_patterns={"^ro+m$": WRITE})).status == 200


async def test_nothing_is_added_without_token_and_signature(post: Post) -> None:
    """403."""
    assert denied(await post.query({"uuid": "ana"}))
    assert post.emulator.truth() == {}


async def test_a_token_that_nobody_granted_adds_nothing(post: Post) -> None:
    """403. Words unknown."""
    assert (await post.query({"uuid": "ana", "auth": "p0thisAk"})).status == 403


@pytest.mark.parametrize(
    "granted",
    [
        {"channels": {"room": READ | DELETE}},
        {"channels": {"hall": ALL}},
        {"channel_patterns": {"^h.*$": ALL}},
        {"groups": {"room": ALL}},
        {"channels": {"room": ALL}, "uuid": "ben"},
    ],
    ids=["no write", "other channel", "other pattern", "a group", "other user"],
)
async def test_a_token_that_grants_something_else_adds_nothing(
    post: Post, granted: dict[str, Any]
) -> None:
    """403."""
    assert denied(await post.with_token(**granted))


async def test_a_token_that_ended_adds_nothing(post: Post) -> None:
    """403, and PubNub says why. It holds until its last second."""
    access = post.emulator.state.access
    token = access.grant(Grant(minutes=1, channels={"room": WRITE}))
    post.emulator.state.advance(50)
    assert (await post.query({"uuid": "ana", "auth": token})).status == 200

    post.emulator.state.advance(10)
    got = await post.query({"uuid": "ben", "auth": token})

    assert (got.status, got.document["message"]) == (403, "Token is expired.")
    assert got.document["service"] == "Access Manager"


@pytest.mark.parametrize(
    "wrong",
    [
        {"keys": (PUBLISH_KEY, "sec-c-other")},
        {"keys": ("pub-c-other", SECRET_KEY)},
        {"sent": BODY.replace(b"reaction", b"receipt")},
    ],
    ids=["secret key", "publish key", "body"],
)
async def test_a_wrong_signature_adds_nothing(post: Post, wrong: dict[str, Any]) -> None:
    """403, even with a token beside it. The words are from an issue of PubNub's Dart SDK."""
    got = await post.signed(**wrong)
    assert (got.status, got.document["message"]) == (403, "Signature does not match")
    assert post.emulator.truth() == {}


@pytest.mark.parametrize(("off", "status"), [(-70, 403), (-50, 200), (50, 200), (70, 403)])
async def test_a_timestamp_is_within_a_minute(post: Post, off: int, status: int) -> None:
    """403 otherwise. Words unknown."""
    assert (await post.signed(off=off)).status == status


@pytest.mark.parametrize("timestamp", [None, "", "soon", "-1"])
async def test_a_signature_needs_a_timestamp(post: Post, timestamp: str | None) -> None:
    """403. Whether PubNub answers 400 instead is unknown."""
    query = {"uuid": "ana"} | ({} if timestamp is None else {"timestamp": timestamp})
    query["signature"] = signature(("POST", ADD), query, BODY, KEYS)
    assert (await post.query(query)).status == 403


async def test_a_signed_addition_meets_the_other_rows(post: Post) -> None:
    """207 of a fault, 409 for what exists, 400 for a user with 65 characters."""
    post.emulator.state.faults.replace({"unpublished": 1})
    assert (await post.signed()).status == 207
    assert (await post.signed()).status == 409
    assert (await post.signed(user="u" * 65)).status == 400


# --- the other requests -------------------------------------------------------------------------


async def test_every_request_of_a_worker_needs_permission(guarded: Emulator, http: Http) -> None:
    """Lists and polls, of channels and groups. The clock is open to everybody."""
    granted = Grant(minutes=1, channels={"room": READ}, groups={"all": READ})
    token = guarded.state.access.grant(granted)
    group = f"/v1/channel-registration/sub-key/{KEY}/channel-group"

    assert (await http.poll(query=f"tt=0&auth={token}&channel-group=all")).status == 200
    assert (await http.get(f"{ROOM}?auth={token}")).status == 200
    assert (await http.get(f"{group}/all?auth={token}")).status == 200
    assert (await http.get("/time/0")).status == 200

    refused = await http.poll("room,hall", f"tt=0&auth={token}&channel-group=all,some")
    assert (refused.status, refused.document["payload"]) == (
        403,
        {"channels": ["hall"], "channel-groups": [":some"]},
    )
    assert denied(await http.get(ROOM))
    assert (await http.get(f"{group}/all?add=hall&auth={token}")).status == 403
    assert (await http.get(f"{group}/all/remove?auth={token}")).status == 403


async def test_a_removal_needs_permission_to_delete(guarded: Emulator, http: Http) -> None:
    """As PubNub's table of operations has it."""
    state = guarded.state
    action = state.add("room", MESSAGE, "reaction", "v", "ana").actions[0].timetoken
    place = f"{ADD}/action/{action}?uuid=ana&auth="
    writes = state.access.grant(Grant(minutes=1, channels={"room": READ | WRITE}))
    deletes = state.access.grant(Grant(minutes=1, channels={"room": DELETE}))

    assert denied(await http.ask("DELETE", place + writes))
    assert (await http.ask("DELETE", place + deletes)).status == 200


async def test_only_a_signed_request_makes_a_token(guarded: Emulator, http: Http) -> None:
    """A token does not."""
    token = guarded.state.access.grant(Grant(minutes=1, channels={"room": ALL}))
    body = {"ttl": 1, "permissions": {"resources": {}, "patterns": {}}}
    got = await http.ask("POST", f"/v3/pam/{KEY}/grant?auth={token}", body)
    assert got.status == 403


async def test_without_the_option_everything_is_as_before(http: Http) -> None:
    """No token is needed, none is made."""
    assert (await http.ask("POST", f"{ADD}?uuid=ana", BODY)).status == 200
    body = {"ttl": 1, "permissions": {"resources": {}, "patterns": {}}}
    assert (await http.ask("POST", f"/v3/pam/{KEY}/grant", body)).status == 403


# --- the SDK ------------------------------------------------------------------------------------


def client(emulator: Emulator, **settings: str) -> Any:
    """Return the unmodified SDK, for ana."""
    return sdk(
        emulator.origin,
        subscribe_key=KEY,
        publish_key=PUBLISH_KEY,
        **{"user_id": "ana", **settings},
    )


@pytest.mark.parametrize("user", ["ana", "it's ana!*()~"])
async def test_the_sdk_signs_what_the_emulator_verifies(guarded: Emulator, user: str) -> None:
    """Additions, lists, removals and groups, whatever the user's name needs."""
    async with client(guarded, secret_key=SECRET_KEY, user_id=user) as pubnub:
        added = await pubnub.add_message_action("room", reaction("👍 ~")).future()
        assert not added.is_error(), added
        listed = await pubnub.get_message_actions("room").limit("5").future()
        assert [action.uuid for action in listed.result.actions] == [user]
        timetoken = added.result.action_timetoken
        gone = await pubnub.remove_message_action("room", MESSAGE, timetoken).future()
        assert not gone.is_error(), gone
        await pubnub.add_channel_to_channel_group().channels(["room"]).channel_group("g").future()
        members = await pubnub.list_channels_in_channel_group().channel_group("g").future()
        assert members.result.channels == ["room"]


async def test_the_sdk_of_another_keyset_is_refused(guarded: Emulator) -> None:
    """Its secret key is another one."""
    async with client(guarded, secret_key="sec-c-other") as pubnub:
        refused = await pubnub.add_message_action("room", reaction("👍")).future()
    assert refused.status.status_code == 403


async def test_the_sdk_grants_a_token_reads_it_and_uses_it(guarded: Emulator) -> None:
    """A server grants; its user has what was granted, and no more."""
    async with client(guarded, secret_key=SECRET_KEY, user_id="server") as server:
        granted = await (
            server.grant_token()
            .ttl(15)
            .authorized_uuid("ana")
            .channels([Channel.id("room").read().write(), Channel.pattern("^hall-.*$").read()])
            .groups([Group.id("all").read()])
            .future()
        )
        token = granted.result.token
        parsed = server.parse_token(token)

    assert (parsed["version"], parsed["ttl"], parsed["authorized_uuid"]) == (2, 15, "ana")
    room = parsed["resources"]["channels"]["room"]
    assert (room["read"], room["write"], room["delete"]) == (True, True, False)
    assert parsed["patterns"]["channels"]["^hall-.*$"]["read"]
    assert parsed["resources"]["groups"]["all"]["read"]
    async with client(guarded) as pubnub:
        pubnub.set_token(token)
        added = await pubnub.add_message_action("room", reaction("👍")).future()
        assert not added.is_error(), added
        elsewhere = await pubnub.add_message_action("hall-1", reaction("👍")).future()
        assert elsewhere.status.status_code == 403
        removal = pubnub.remove_message_action("room", MESSAGE, added.result.action_timetoken)
        assert (await removal.future()).status.status_code == 403


@pytest.mark.parametrize("minutes", [0, 43_201, "x"])
async def test_a_token_lives_a_minute_to_thirty_days(
    guarded: Emulator, http: Http, minutes: int | str
) -> None:
    """400 otherwise. Words unknown."""
    place = f"/v3/pam/{KEY}/grant"
    body = f'{{"ttl":"{minutes}","permissions":{{"resources":{{}},"patterns":{{}}}}}}'.encode()
    query = {"timestamp": str(guarded.state.time.now() // SECONDS)}
    query["signature"] = signature(("POST", place), query, body, KEYS)
    got = await http.ask("POST", URL(place).with_query(query).raw_path_qs, body)
    assert got.status == 400


NINES: Final = "9" * 5_000
DEEP: Final = "[" * 200_000


def grant_body(*, ttl: str = "1", channels: str = "{}", more: str = "") -> bytes:
    """Return the JSON of a grant, of which parts are written by hand."""
    resources = f'{{"channels":{channels}}}'
    permissions = f'{{"resources":{resources},"patterns":{{}}{more}}}'
    return f'{{"ttl":{ttl},"permissions":{permissions}}}'.encode()


@pytest.mark.parametrize(
    "body",
    [
        grant_body(ttl="1e400"),
        grant_body(ttl=NINES),
        grant_body(channels='{"room":1e400}'),
        grant_body(channels=f'{{"room":{NINES}}}'),
        grant_body(channels='{"\\ud800":1}'),
        grant_body(more=',"uuid":"\\ud800"'),
        grant_body(more=',"uuid":["ana"]'),
        grant_body(channels=DEEP),
        b"\xff",
    ],
    ids=lambda body: body[:60],
)
async def test_a_grant_of_hostile_json_is_refused(
    guarded: Emulator, http: Http, body: bytes
) -> None:
    """With 400, and no traceback."""
    place = f"/v3/pam/{KEY}/grant"
    query = {"timestamp": str(guarded.state.time.now() // SECONDS)}
    query["signature"] = signature(("POST", place), query, body, KEYS)
    path = URL(place).with_query(query).raw_path_qs

    assert (await http.ask("POST", path, body)).status == 400


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", f"{ROOM}?limit={NINES}", None, 400),
        ("GET", f"{ROOM}?start={NINES}", None, 400),
        ("GET", f"/v2/subscribe/{KEY}/room/0?tt={NINES}", None, 400),
        ("POST", f"{ROOM}/message/{NINES}?uuid=ana", BODY, 400),
        ("DELETE", f"{ROOM}/message/{MESSAGE}/action/{NINES}?uuid=ana", None, 400),
        ("POST", f"{ADD}?uuid=ana", DEEP.encode(), 400),
        ("POST", f"{ADD}?uuid=ana", f'{{"type":{NINES},"value":""}}'.encode(), 400),
        ("POST", f"{ADD}?uuid=ana", b'{"type":"\\ud800","value":"\\udfff"}', 200),
        ("POST", f"/publish/p/{KEY}/0/room/0", DEEP.encode(), 400),
        ("POST", f"/publish/p/{KEY}/0/room/0", NINES.encode(), 400),
        ("POST", f"/publish/p/{KEY}/0/room/0", b'"\\ud800"', 200),
    ],
    ids=lambda value: str(value)[:40],
)
async def test_a_hostile_request_has_an_answer(
    http: Http, method: str, path: str, body: bytes | None, status: int
) -> None:
    """Numbers that are too long, and JSON that is too deep, are refused with 400."""
    assert (await http.ask(method, path, body)).status == status


@pytest.mark.parametrize("query", [f"timestamp={NINES}&signature=x", "signature=v2.%ED%A0%80"])
async def test_a_hostile_signature_is_refused(guarded: Emulator, http: Http, query: str) -> None:
    """With 403."""
    now = guarded.state.time.now() // SECONDS
    query = query if "timestamp" in query else f"{query}&timestamp={now}"

    assert (await http.ask("POST", f"{ADD}?uuid=ana&{query}", BODY)).status == 403
