"""Subscribe over HTTP: the cursor, the catch-up cache, and the names."""

import asyncio
from urllib.parse import quote

import pytest

from tests.emulator.clients import MESSAGE, Clock, Http
from tests.waiting import wait_until
from worker.emulator import Emulator


def say(emulator: Emulator, channel: str, *texts: object) -> None:
    """Publish ordinary messages."""
    for text in texts:
        emulator.state.publish(channel, text, "ana")


async def test_a_handshake_answers_at_once_without_messages(emulator: Emulator, http: Http) -> None:
    """The answer has two members. The cursor is text and a number."""
    say(emulator, "room", "before")
    got = (await http.poll()).document
    assert (sorted(got), sorted(got["t"]), got["m"]) == (["m", "t"], ["r", "t"], [])
    assert (len(got["t"]["t"]), type(got["t"]["r"])) == (17, int)


async def test_an_idle_poll_returns_its_own_cursor(emulator: Emulator, http: Http) -> None:
    """Timetoken and region come back verbatim, after the idle time."""
    got = await http.poll(query="tt=17600000000000001&tr=7")
    assert got.document == {"t": {"t": "17600000000000001", "r": 7}, "m": []}


async def test_a_waiting_poll_is_answered_by_an_event(
    patient: Emulator, patient_http: Http
) -> None:
    """The idle time is not over, and other channels do not wake it."""
    cursor = (await patient_http.poll()).cursor
    polling = asyncio.create_task(patient_http.poll(query=cursor))
    await wait_until(lambda: patient.waiting == 1)
    say(patient, "elsewhere", "not for us")
    say(patient, "room", "hello")
    assert (await polling).texts == ["hello"]


async def test_an_action_event_has_the_recorded_envelope(emulator: Emulator, http: Http) -> None:
    """The user is beside the data, and the kind is 3."""
    cursor = (await http.poll()).cursor
    action = emulator.state.add("room", MESSAGE, "reaction", "👍", "ana").actions[0]
    got = (await http.poll(query=cursor)).document
    (message,) = got["m"]

    published = message.pop("p")
    assert published["r"] != got["t"]["r"]
    assert int(published["t"]) > action.timetoken
    data = {"type": "reaction", "value": "👍"}
    data |= {"actionTimetoken": str(action.timetoken), "messageTimetoken": MESSAGE}
    payload = {"source": "actions", "version": "1.0", "event": "added", "data": data}
    assert message == {"a": "5", "f": 0, "e": 3, "i": "ana", "k": "demo", "c": "room", "d": payload}


async def test_an_ordinary_message_has_no_kind(emulator: Emulator, http: Http) -> None:
    """It shares the stream with actions."""
    cursor = (await http.poll()).cursor
    say(emulator, "room", {"text": "hi"})
    (message,) = (await http.poll(query=cursor)).document["m"]
    assert (message.get("e"), message["d"]) == (None, {"text": "hi"})


async def test_a_poll_gets_everything_behind_its_cursor(emulator: Emulator, http: Http) -> None:
    """Each message comes once, in order. The same cursor gets them again."""
    cursor = (await http.poll()).cursor
    say(emulator, "room", *range(10))
    first = await http.poll(query=cursor)
    assert first.texts == list(range(10))
    assert (await http.poll(query=cursor)).document == first.document
    assert (await http.poll(query=first.cursor)).texts == []


async def test_overflow_keeps_the_newest_hundred_without_a_sign(
    emulator: Emulator, http: Http
) -> None:
    """The oldest are dropped, and the answer looks like any other."""
    cursor = (await http.poll()).cursor
    say(emulator, "room", *range(130))
    got = await http.poll(query=cursor)
    assert got.texts == list(range(30, 130))
    assert sorted(got.document) == ["m", "t"]


async def test_all_channels_of_a_poll_share_the_hundred(emulator: Emulator, http: Http) -> None:
    """Two channels have seventy messages each. Forty are dropped."""
    cursor = (await http.poll("a,b")).cursor
    say(emulator, "a", *range(70))
    say(emulator, "b", *range(70, 140))
    assert (await http.poll("a,b", cursor)).texts == list(range(40, 140))
    assert (await http.poll("a", cursor)).texts == list(range(70))


async def test_a_cursor_older_than_the_cache_is_no_error(emulator: Emulator, http: Http) -> None:
    """The older messages are missing without a sign."""
    cursor = (await http.poll()).cursor
    say(emulator, "room", "old")
    emulator.state.advance(1001)
    say(emulator, "room", "new")
    assert (await http.poll(query=cursor)).texts == ["new"]


@pytest.mark.parametrize(("seconds", "age"), [(16, 16), (18, 0)])
async def test_a_handshake_can_return_a_cursor_some_seconds_old(
    http: Http, monkeypatch: pytest.MonkeyPatch, seconds: int, age: int
) -> None:
    """It is that of the last message, up to seventeen seconds old."""
    monkeypatch.setattr("worker.emulator.emulator.time", clock := Clock())
    async with Emulator() as emulator:
        say(emulator, "room", "last")
        clock.tick(seconds)
        handshake = await Http(http._session, emulator.origin).poll()
        assert (
            round((emulator.state.time.now() - int(handshake.document["t"]["t"])) / 10_000_000)
            == age
        )


async def test_a_lone_comma_subscribes_to_groups_alone(emulator: Emulator, http: Http) -> None:
    """The messages of the group's channels name the group."""
    emulator.state.groups.add("fans", ["room", "hall"])
    cursor = (await http.poll(",", "tt=0&channel-group=fans")).cursor
    say(emulator, "hall", "hello")
    (message,) = (await http.poll(",", f"{cursor}&channel-group=fans")).document["m"]
    assert (message["c"], message["b"], message["d"]) == ("hall", "fans", "hello")


async def test_an_open_poll_gets_a_channel_added_to_its_group(
    patient: Emulator, patient_http: Http
) -> None:
    """The group has the channel when the message is published."""
    cursor = (await patient_http.poll(",", "tt=0&channel-group=fans")).cursor
    polling = asyncio.create_task(patient_http.poll(",", f"{cursor}&channel-group=fans"))
    await wait_until(lambda: patient.waiting == 1)
    patient.state.groups.add("fans", ["room"])
    say(patient, "room", "hello")
    assert (await polling).texts == ["hello"]


async def test_wildcards_match_one_and_two_levels(emulator: Emulator, http: Http) -> None:
    """A third level or a lone star matches nothing."""
    cursor = (await http.poll("a.*")).cursor
    for channel in ("a.b", "a.b.c", "a.x.c", "ab", "b.a"):
        say(emulator, channel, channel)
    assert (await http.poll("a.*", cursor)).texts == ["a.b", "a.b.c", "a.x.c"]
    assert (await http.poll("a.b.*", cursor)).texts == ["a.b.c"]
    assert (await http.poll("a.b.c.*,*", cursor)).texts == []


async def test_a_message_matched_twice_comes_twice_in_one_answer(
    emulator: Emulator, http: Http
) -> None:
    """Each match comes once, with its name unless it is the channel."""
    emulator.state.groups.add("fans", ["a.b"])
    channels, groups = "a.b,a.*", "&channel-group=fans"
    cursor = (await http.poll(channels, f"tt=0{groups}")).cursor
    emulator.state.add("a.b", MESSAGE, "t", "v", "u")
    messages = (await http.poll(channels, cursor + groups)).document["m"]
    assert sorted(message.get("b", "") for message in messages) == ["", "a.*", "fans"]
    assert len({message["d"]["data"]["actionTimetoken"] for message in messages}) == 1


async def test_channel_names_are_split_before_they_are_decoded(
    emulator: Emulator, http: Http
) -> None:
    """Names can have emoji, blanks and encoded commas."""
    names = ["raum 👍", "50%", "a,b", "ü"]
    asked = ",".join(quote(name, safe="") for name in names)
    cursor = (await http.poll(asked)).cursor
    for name in names:
        say(emulator, name, name)
    assert (await http.poll(asked, cursor)).texts == names


async def test_a_poll_without_names_or_cursor_is_refused(http: Http) -> None:
    """A lone comma names nothing without groups."""
    assert (await http.poll(",")).status == 400
    assert (await http.poll(query="tt=yesterday")).status == 400


async def test_a_dropped_subscriber_is_forgotten(patient: Emulator, patient_http: Http) -> None:
    """Its poll ends when the client closes the connection."""
    polling = asyncio.create_task(patient_http.poll(query=(await patient_http.poll()).cursor))
    await wait_until(lambda: patient.waiting == 1)
    polling.cancel()
    await wait_until(lambda: patient.waiting == 0)
