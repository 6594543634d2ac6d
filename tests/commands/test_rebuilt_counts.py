"""What eviction or a hand has changed in Redis is mended: by the command, and by the worker."""

from typing import Final

import pytest

from tests.store.journal_follower import JournalFollower
from tests.waiting import wait_until
from tests.worlds import KEYS, MESSAGE, ROOM, World

COUNTS: Final = KEYS.counts(ROOM, MESSAGE)
ACTIONS: Final = KEYS.actions(ROOM, MESSAGE)
INDEX: Final = KEYS.messages(ROOM)
SETTLES_AT_ONCE: Final = {"TALLY_SETTLE_SECONDS": "0.2"}

LOSSES: Final = [
    [("HSET", COUNTS, "reaction:👍", "7")],
    [("DEL", COUNTS)],
    [("DEL", ACTIONS)],
    [("DEL", INDEX)],
    [("DEL", COUNTS, ACTIONS)],
    [("DEL", ACTIONS, INDEX)],
    [("DEL", COUNTS, INDEX)],
    [("HSET", ACTIONS, "reaction", "5"), ("HDEL", ACTIONS, "reaction:🎉:ben")],
]


@pytest.fixture
async def counted(world: World) -> World:
    """Let two users have reacted, and the worker have counted them."""
    world.settings |= SETTLES_AT_ONCE
    world.react("👍", "ana")
    world.react("👍", "ben")
    world.react("🎉", "ben")
    async with world.run_worker():
        await world.settles()
        await wait_until(world.owes_nothing)
    return world


async def lose(world: World, losses: list[tuple[str, ...]]) -> JournalFollower:
    """Send these commands; return a follower that holds the counts of before."""
    follower = JournalFollower(world.redis, ROOM)
    await follower.catch_up()
    for command in losses:
        await world.redis.execute_command(*command)
    return follower


async def is_right(world: World, follower: JournalFollower) -> None:
    """Expect verify to find no difference, and the follower to hold the counts."""
    verified = await world.run_command("verify")
    assert verified.code == 0, verified.out
    assert await world.is_exact()
    await follower.catch_up()
    assert follower.snapshots == 1
    assert follower.tallies == {MESSAGE: {"reaction:👍": 2, "reaction:🎉": 1}}


@pytest.mark.parametrize("losses", LOSSES)
async def test_reconcile_mends_what_was_lost(counted: World, losses: list[tuple[str, ...]]) -> None:
    """Verify says 0 after one reconcile, and a follower of the journal has the right counts."""
    follower = await lose(counted, losses)
    if losses != [("DEL", COUNTS, ACTIONS)]:  # else the counts come from PubNub alone
        assert (await counted.run_command("verify")).code == 5

    reconciled = await counted.run_command("reconcile")

    assert reconciled.code == 0
    if losses != [("DEL", COUNTS, ACTIONS)]:
        assert "messages rebuilt" in reconciled.out
    await is_right(counted, follower)


@pytest.mark.parametrize("losses", LOSSES)
async def test_the_worker_mends_what_was_lost(
    counted: World, losses: list[tuple[str, ...]]
) -> None:
    """The next repair of the channel does it: here, after a full answer."""
    async with counted.run_worker() as worker:
        follower = await lose(counted, losses)
        for _ in range(120):
            counted.state.publish(ROOM, "hello", "somebody")
        await wait_until(lambda: bool(worker.entries("gap_repaid")), what=lambda: worker.err)
        await wait_until(counted.owes_nothing, what=lambda: worker.err)

    await is_right(counted, follower)


async def test_messages_that_pubnub_lists_no_more_are_indexed_again(counted: World) -> None:
    """No list shows them, so all keys are looked at. Their entries are pruned then."""
    for action in counted.state.actions(ROOM):
        counted.take_back(action.timetoken, action.identity.uuid, published=False)
    counted.react("👍", "ana", "hall")
    assert (await counted.run_command("backfill", "hall")).code == 0
    follower = await lose(counted, [("DEL", INDEX)])

    reconciled = await counted.run_command("reconcile")

    assert reconciled.code == 0, reconciled
    assert await counted.counts() == {}
    assert "counts_rebuilt" in reconciled.err
    assert (await counted.run_command("verify")).code == 0
    await follower.catch_up()
    assert (follower.snapshots, follower.tallies) == (1, {MESSAGE: {}})


async def test_a_dry_run_rebuilds_nothing(counted: World) -> None:
    """It writes nothing at all."""
    await lose(counted, [("HSET", COUNTS, "reaction:👍", "7")])

    assert (await counted.run_command("reconcile", "--dry-run")).code == 0

    assert await counted.counts() == {"👍": 7, "🎉": 1}
