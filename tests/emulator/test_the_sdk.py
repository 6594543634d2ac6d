"""The emulator serves the unmodified SDK."""

from typing import Any

from pubnub.endpoints.presence.heartbeat import Heartbeat
from pubnub.endpoints.presence.leave import Leave
from pubnub.endpoints.pubsub.subscribe import Subscribe

from tests.emulator.clients import MESSAGE, asyncio_sdk, reaction
from worker.emulator import Emulator

EMOJI_ROOM = "raum 👍"


async def test_an_action_is_added_listed_and_removed_by_the_sdk(emulator: Emulator) -> None:
    """The truth follows it."""
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


async def test_a_poll_of_the_sdk_gets_both_kinds_of_event(emulator: Emulator) -> None:
    """The subscribe endpoint returns them with all their fields."""
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
        head = {"source": "actions", "version": "1.0"}
        assert message["d"] == {**head, "event": event, "data": facts}
        assert int(message["p"]["t"]) > action.timetoken


async def test_a_channel_group_is_filled_listed_and_emptied_by_the_sdk(emulator: Emulator) -> None:
    """These are the four calls of the channel registry."""
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


async def test_messages_and_time_answer_the_sdk(emulator: Emulator) -> None:
    """They change no counts."""
    async with asyncio_sdk(emulator.origin) as pubnub:
        published = await pubnub.publish().channel("room").message({"text": "a/b ü"}).future()
        posted = await pubnub.publish().channel("room").message("long").use_post(True).future()
        now = await pubnub.time().future()

    assert published.result.timetoken < posted.result.timetoken
    assert len(str(int(now.result))) == 17
    assert emulator.truth() == {}


async def test_heartbeats_and_leaves_of_the_sdk_are_answered(emulator: Emulator) -> None:
    """The SDK's subscription manager sends them beside its polls."""
    async with asyncio_sdk(emulator.origin) as pubnub:
        for call in (Heartbeat(pubnub), Leave(pubnub)):
            said = await call.channels(["room"]).channel_groups(["fans"]).future()
            assert not said.is_error()
    assert emulator.requests == {"presence": 2}
