"""``tally backfill``: its channels, its range, and what a refusal does."""

import json
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import pytest

from tests.bench.in_process import Ended
from tests.worlds import FIRST, KEYS, MESSAGE, ROOM, SECOND, World
from worker.errors import ExitCode
from worker.source.history import History, ListSlice
from worker.store.connection import connect
from worker.store.pending_repairs import GapCause
from worker.store.tables import Tables


async def test_only_the_given_range_is_replayed(world: World) -> None:
    """`--since` is inclusive and `--until` exclusive. A date may replace a timetoken."""
    tally = world.commands()
    world.fill(300, messages=300)
    since, until = FIRST + 100 * SECOND, FIRST + 200 * SECOND

    ended = await tally.do("backfill", ROOM, "--since", str(since), "--until", str(until), "--json")
    (found,) = (await world.tallies()).values()
    by_date = await tally.do(
        "backfill", ROOM, "--since", "2025-06-15T15:08:20", "--until", str(until), "--json"
    )

    assert set(found) == {str(int(MESSAGE) + number) for number in range(100, 200)}
    report = json.loads(ended.out)
    assert set(report) == {"channels", "actions"}
    assert report["actions"] == report["channels"][ROOM] >= 100
    assert json.loads(by_date.out) == report


async def test_a_backfill_replays_all_channels_by_default(world: World) -> None:
    """These are all configured channels, members of groups, and all ever seen.

    With arguments it replays only those.
    """
    tally = world.commands()
    for channel in ("room", "hall", "team-one", "met", "other"):
        world.fill(250, channel=channel, messages=50)
    world.state.groups.add("team", ["team-one"])
    await world.redis.sadd("tally:channels", "met")

    named = await tally.do("backfill", "hall")
    only = set(await world.tallies())
    ended = await tally.do("backfill", "--json", TALLY_CHANNEL_GROUPS="team")

    assert (named.out, only) == (
        f"{actions_of(ended, 'hall')} actions read in 1 channels.\n",
        {"hall"},
    )
    assert set(json.loads(ended.out)["channels"]) == {"room", "hall", "team-one", "met"}
    assert await world.tallies() == {
        name: of for name, of in world.emulator.truth().items() if name != "other"
    }


def actions_of(ended: Ended, channel: str) -> int:
    """Return how many actions a backfill says it read of a channel."""
    return int(json.loads(ended.out)["channels"][channel])


async def test_a_refusal_ends_a_backfill(world: World) -> None:
    """A 403 ends with 3 and PubNub's own message, after the other channels.

    A later run resumes.
    """
    tally = world.commands()
    world.fill(150)
    world.fill(150, channel="hall")
    world.state.refuse(["room"])

    refused = await tally.do("backfill", "room", "hall")
    only = set(await world.tallies())
    world.state.refuse()
    ended = await tally.do("backfill", "room", "hall")

    assert (refused.code, ended.code) == (3, 0)
    assert "answered 403, Forbidden." in refused.err
    assert only == {"hall"}
    assert await world.is_exact()


@pytest.mark.parametrize("command", ["backfill", "reconcile"])
@pytest.mark.parametrize("since", [(), ("--since", "2025-06-15")], ids=["whole", "a part"])
async def test_a_slip_in_a_name_does_not_stay(
    world: World, command: str, since: tuple[str, ...]
) -> None:
    """Nothing in Redis names the channel afterwards: no round asks PubNub for it."""
    ended = await world.run_command(command, "hal", *since, TALLY_SETTLE_SECONDS="0.1")

    assert ended.code == 0, ended
    assert "channel_not_kept" in ended.err
    assert await world.redis.smembers(KEYS.channels) == set()
    assert not await world.redis.exists(KEYS.owed("hal"), KEYS.progress("hal"))
    assert command == "reconcile" or "hal: PubNub lists nothing. Is the name right?" in ended.out


@pytest.mark.parametrize("command", ["backfill", "reconcile"])
async def test_a_slip_that_is_refused_does_not_stay(world: World, command: str) -> None:
    """Typed again, it is still unknown. The other channel is counted all the same."""
    world.fill(3, channel="hall")
    world.state.refuse(["hal"])

    for _ in range(2):
        ended = await world.run_command(command, "hal", "hall", TALLY_SETTLE_SECONDS="0.1")
        assert ended.code == ExitCode.PUBNUB_REFUSED, ended
        assert "answered 403" in ended.err + ended.out
        assert await world.redis.smembers(KEYS.channels) == {"hall"}
        assert not await world.redis.exists(KEYS.owed("hal"), KEYS.progress("hal"))
    assert set(await world.tallies()) == {"hall"}


async def test_a_range_without_actions_is_no_slip(world: World) -> None:
    """The name is right: PubNub lists older actions. They are owed a repair."""
    world.fill(3, channel="hall")
    ended = await world.run_command("backfill", "hall", "--since", "2026-01-01")

    assert ended.code == 0, ended
    assert "hall: PubNub lists nothing in this range." in ended.out
    assert "channel_not_kept" not in ended.err
    assert await world.redis.smembers(KEYS.channels) == {"hall"}
    assert await world.redis.hkeys(KEYS.owed("hall")) == [GapCause.NEW_CHANNEL]


@pytest.mark.parametrize("command", ["backfill", "reconcile"])
async def test_a_channel_that_a_worker_begins_to_follow_stays(
    world: World, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It begins while the command reads PubNub's empty list."""
    slices = History.slices
    url = str(world.settings["REDIS_URL"])

    async def slices_meanwhile(
        self: History, channel: str, *args: Any, **options: Any
    ) -> AsyncIterator[ListSlice]:
        async with connect(url) as redis:
            tables = Tables(redis, KEYS)
            await tables.owe([channel], GapCause.NEW_CHANNEL)
            await tables.cursors.register("subscription", [channel])
        async with aclosing(slices(self, channel, *args, **options)) as found:
            async for item in found:
                yield item

    monkeypatch.setattr(History, "slices", slices_meanwhile)
    ended = await world.run_command(command, "hall", TALLY_SETTLE_SECONDS="0.1")

    assert ended.code == 0, ended
    assert await world.redis.smembers(KEYS.channels) == {"hall"}
    assert await world.redis.hkeys(KEYS.owed("hall")) == [GapCause.NEW_CHANNEL]


async def test_a_channel_that_is_configured_or_known_stays(world: World) -> None:
    """Though PubNub lists nothing of it."""
    await world.redis.sadd(KEYS.channels, "met")

    ended = await world.run_command("backfill", ROOM, "met")

    assert ended.code == 0, ended
    assert await world.redis.smembers(KEYS.channels) == {ROOM, "met"}


async def test_a_channel_that_a_worker_follows_stays(world: World) -> None:
    """It is configured there, and not here."""
    async with world.run_worker(TALLY_CHANNELS="hall"):
        await world.redis.srem(KEYS.channels, "hall")
        ended = await world.run_command("backfill", "hall")

    assert ended.code == 0, ended
    assert await world.redis.sismember(KEYS.channels, "hall")
