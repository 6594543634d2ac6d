"""The unmodified SDK is content: every call this project and its users make, through both of its clients."""

import asyncio
from typing import Any

from pubnub.endpoints.presence.heartbeat import Heartbeat
from pubnub.endpoints.presence.leave import Leave
from pubnub.endpoints.pubsub.subscribe import Subscribe
from pubnub.enums import PNStatusCategory

from tests.emulator.clients import MESSAGE, asyncio_sdk, blocking_sdk, reaction
from worker.emulator import Emulator

EMOJI_ROOM = "raum 👍"


def values(envelope: Any) -> list[str]:
    """Return the values of a listed page."""
    return [action.value for action in envelope.result.actions]


async def test_an_action_is_added_listed_and_removed_by_the_asyncio_sdk(emulator: Emulator) -> None:
    """One action goes through its whole life."""
    async with asyncio_sdk(emulator.origin) as pubnub:
        added = (
            await pubnub.add_message_action()
            .channel(EMOJI_ROOM)
            .message_action(reaction("👍"))
            .future()
        )
        listed = await pubnub.get_message_actions().channel(EMOJI_ROOM).future()
        assert emulator.truth() == {EMOJI_ROOM: {MESSAGE: {"reaction": {"👍": 1}}}}
        removing = pubnub.remove_message_action().channel(EMOJI_ROOM).message_timetoken(MESSAGE)
        removed = await removing.action_timetoken(added.result.action_timetoken).future()

    assert vars(listed.result.actions[0]) == vars(added.result)
    assert (added.result.uuid, added.result.message_timetoken) == ("ana", MESSAGE)
    assert removed.result == {}
    assert emulator.truth() == {}


async def test_an_action_is_added_listed_and_removed_by_the_blocking_sdk(
    emulator: Emulator,
) -> None:
    """The same life, from a thread."""

    def live() -> tuple[list[str], list[str]]:
        with blocking_sdk(emulator.origin) as pubnub:
            added = pubnub.add_message_action(EMOJI_ROOM, reaction("🎉")).sync()
            before = values(pubnub.get_message_actions(EMOJI_ROOM).sync())
            pubnub.remove_message_action(EMOJI_ROOM, MESSAGE, added.result.action_timetoken).sync()
            return before, values(pubnub.get_message_actions(EMOJI_ROOM).sync())

    assert await asyncio.to_thread(live) == (["🎉"], [])


async def test_pages_are_cut_as_the_sdk_asks(emulator: Emulator) -> None:
    """Start is exclusive, end inclusive, a limited page the newest below start."""
    tokens = [
        emulator.state.add("room", MESSAGE, "t", value, "u").actions[0].timetoken
        for value in "abcd"
    ]
    async with asyncio_sdk(emulator.origin) as pubnub:

        async def page(**bounds: object) -> list[str]:
            asked = {name: str(bound) for name, bound in bounds.items()}
            return values(await pubnub.get_message_actions("room", **asked).future())

        assert await page(start=tokens[2]) == ["a", "b"]
        assert await page(end=tokens[2]) == ["c", "d"]
        assert await page(limit=3) == ["b", "c", "d"]
        assert await page(start=tokens[3], limit=2) == ["b", "c"]


async def test_a_poll_of_the_sdk_hears_both_kinds_of_event(emulator: Emulator) -> None:
    """The subscribe endpoint, driven by hand, gives the addition and the removal with all that tells them apart."""
    async with asyncio_sdk(emulator.origin, "reader") as pubnub:

        async def poll(cursor: dict[str, Any]) -> Any:
            asked = Subscribe(pubnub).channels([EMOJI_ROOM]).channel_groups(["gruppe 🎈"])
            return (await asked.timetoken(cursor["t"]).region(cursor["r"]).future()).result

        cursor = (await poll({"t": "0", "r": 0}))["t"]
        action = emulator.state.add(EMOJI_ROOM, MESSAGE, "reaction", "👍", "ana").actions[0]
        added = await poll(cursor)
        emulator.state.remove(EMOJI_ROOM, MESSAGE, action.timetoken, "ana")
        removed = await poll(added["t"])

    facts = {"type": "reaction", "value": "👍"}
    facts |= {"actionTimetoken": str(action.timetoken), "messageTimetoken": MESSAGE}
    for answer, event in ((added, "added"), (removed, "removed")):
        (message,) = answer["m"]
        assert (message["e"], message["i"], message["c"]) == (3, "ana", EMOJI_ROOM)
        assert message["d"] == {
            "source": "actions",
            "version": "1.0",
            "event": event,
            "data": facts,
        }
        assert int(message["p"]["t"]) > action.timetoken


async def test_a_refusal_reaches_the_sdk_with_its_status(emulator: Emulator) -> None:
    """A repeated addition is a 409, a refused channel an AccessDenied."""
    emulator.state.refuse(channels=["secret"])
    async with asyncio_sdk(emulator.origin) as pubnub:
        adding = pubnub.add_message_action().channel("room").message_action(reaction("👍"))
        await adding.future()
        again = await adding.future()
        refused = await pubnub.get_message_actions().channel("secret").future()

    assert (again.is_error(), again.status.status_code) == (True, 409)
    assert refused.status.category == PNStatusCategory.PNAccessDeniedCategory


async def test_a_channel_group_is_filled_listed_and_emptied_by_the_sdk(emulator: Emulator) -> None:
    """The four calls of the channel registry."""
    async with asyncio_sdk(emulator.origin) as pubnub:

        async def listed() -> list[str]:
            listing = await pubnub.list_channels_in_channel_group().channel_group("g").future()
            return list(listing.result.channels)

        await (
            pubnub.add_channel_to_channel_group()
            .channels(["a", "b", "c"])
            .channel_group("g")
            .future()
        )
        assert await listed() == ["a", "b", "c"]
        await pubnub.remove_channel_from_channel_group().channels(["b"]).channel_group("g").future()
        assert await listed() == ["a", "c"]
        await pubnub.remove_channel_group().channel_group("g").future()
        assert await listed() == []


async def test_publish_signal_and_time_answer_the_sdk(emulator: Emulator) -> None:
    """Ordinary traffic shares the channel: it is delivered, and counts nowhere."""
    async with asyncio_sdk(emulator.origin) as pubnub:
        published = await pubnub.publish().channel("room").message({"text": "a/b ü"}).future()
        posted = await pubnub.publish().channel("room").message("long").use_post(True).future()
        signalled = await pubnub.signal().channel("room").message("typing").future()
        now = await pubnub.time().future()

    times = [
        published.result.timetoken,
        posted.result.timetoken,
        int(signalled.result.timetoken),
        int(now.result),
    ]
    assert times[:3] == sorted(times[:3])
    assert len(str(times[3])) == 17
    assert emulator.truth() == {}


async def test_the_sdk_may_say_it_is_there_and_that_it_leaves(emulator: Emulator) -> None:
    """What its subscription manager sends beside the polls, and when it stops."""
    async with asyncio_sdk(emulator.origin) as pubnub:
        for call in (Heartbeat(pubnub), Leave(pubnub)):
            said = await call.channels(["room"]).channel_groups(["fans"]).future()
            assert not said.is_error()
    assert emulator.requests == {"presence": 2}
