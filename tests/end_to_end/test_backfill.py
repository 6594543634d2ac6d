"""``tally backfill``: everything PubNub lists, whatever interrupts it."""

from tests.processes import Child
from tests.waiting import wait_until
from tests.worlds import KEYS, ROOM, World


async def kill_after(world: World, child: Child, actions: int) -> None:
    """Kill a backfill in the middle, when it has applied that many actions.

    That cannot come too late: PubNub is in this process, and answers only while this process looks.
    """

    async def is_there() -> bool:
        applied = int(await world.redis.hget(KEYS.progress(ROOM), "actions") or 0)
        return applied >= actions or not child.is_alive

    await wait_until(is_there, what=child.tail)
    assert child.is_alive, "the backfill ended before it was killed"
    await child.killed()


async def test_a_killed_backfill_resumes(world: World) -> None:
    """Killed among 3,000 actions, it ends with the truth and repeats only pages at the kill."""
    world.fill(3_000)

    await kill_after(world, world.start("backfill", ROOM), 1_000)
    last = await world.do("backfill", ROOM)

    assert last.process.returncode == 0, last.err
    assert await world.is_exact()
    # 3,000 actions are 33 requests: pages that bring 99 new ones each, a rest and an end. The kill
    # costs a page that was applied but not noted, one in flight, and a look at what came since.
    # Starting over would cost 10 at least.
    assert world.emulator.requests["actions"] <= 33 + 3
    assert not await world.redis.exists(KEYS.progress(ROOM))
