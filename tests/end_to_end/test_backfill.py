"""``tally backfill``: everything PubNub lists, whatever interrupts it."""

from tests.end_to_end.processes import KEYS, MESSAGE, ROOM, Child, Stage, wait_until

SECOND = 10_000_000
FIRST = 17_500_000_000_000_000
"""The timetoken of the oldest action; each is a second later than the one before."""


def fill(stage: Stage, actions: int, *, channel: str = ROOM, messages: int = 500) -> None:
    """Give a channel a past: actions a second apart, the newest of them long ago."""
    for number in range(actions):
        message = str(int(MESSAGE) + number % messages)
        value, uuid = "👍🎉❤"[number % 3], f"user-{number // messages}"
        stage.state.add(
            channel, message, "reaction", value, uuid, published=False, at=FIRST + number * SECOND
        )


async def kill_after(stage: Stage, child: Child, actions: int) -> None:
    """Kill a backfill in the middle, when it has applied that many.

    That cannot come too late: PubNub is in this process, and answers no more while this one does not look.
    """

    async def is_there() -> bool:
        applied = int(await stage.redis.hget(KEYS.progress(ROOM), "actions") or 0)
        return applied >= actions or not child.is_alive

    await wait_until(is_there, 60, what=lambda: child.err)
    assert child.is_alive, "it ended before it could be killed"
    await child.killed()


async def test_a_killed_backfill_goes_on_where_it_was(stage: Stage) -> None:
    """Killed among 3,000 actions, it ends with the truth, and asks for no page twice but those at the kill."""
    fill(stage, 3_000)

    await kill_after(stage, stage.start("backfill", ROOM), 1_000)
    last = await stage.do("backfill", ROOM)

    assert last.process.returncode == 0, last.err
    assert await stage.is_true()
    # 3,000 in pages that bring 99 new ones each, a rest and an end: 33. The kill costs a page that was applied but not
    # noted, one in flight, and a look at what came since; starting over would cost 10 at least.
    assert stage.emulator.requests["actions"] <= 33 + 3
    assert not await stage.redis.exists(KEYS.progress(ROOM))
