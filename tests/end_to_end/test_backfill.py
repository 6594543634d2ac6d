"""``tally backfill``: everything PubNub lists, whatever interrupts it."""

import json
import signal

import pytest

from tests.end_to_end.processes import KEYS, MESSAGE, ROOM, Child, Stage, wait_until

SECOND = 10_000_000
FIRST = 17_500_000_000_000_000
"""The timetoken of the oldest action; each is a second later than the one before."""


def fill(stage: Stage, actions: int, *, channel: str = ROOM, messages: int = 500) -> None:
    """Give a channel a past: actions a second apart, the newest of them long ago."""
    for number in range(actions):
        message = str(int(MESSAGE) + number % messages)
        value, uuid = "👍🎉❤"[number % 3], f"user-{number // messages}"
        at = None if stage.state.faults.rates.get("tie") else FIRST + number * SECOND
        stage.state.add(channel, message, "reaction", value, uuid, published=False, at=at)


async def applied(stage: Stage, channel: str = ROOM) -> int:
    """Return how many actions the running backfill says it has applied; 0 where none runs."""
    return int(await stage.redis.hget(KEYS.progress(channel), "actions") or 0)


async def kill_after(stage: Stage, child: Child, actions: int) -> None:
    """Kill a backfill in the middle, when it has applied that many."""

    async def is_there() -> bool:
        return await applied(stage) >= actions or not child.is_alive

    await wait_until(is_there, what=lambda: child.err)
    assert child.is_alive, "it ended before it could be killed"
    await child.killed()


async def test_a_killed_backfill_goes_on_where_it_was(stage: Stage) -> None:
    """Killed twice among 20,000 actions, it ends with the truth, and asks for no page twice but those at the kills."""
    fill(stage, 20_000)

    await kill_after(stage, stage.start("backfill", ROOM), 4_000)
    first = stage.emulator.requests["actions"]
    await kill_after(stage, stage.start("backfill", ROOM), 11_000)
    second = stage.emulator.requests["actions"]
    last = await stage.do("backfill", ROOM)

    assert last.process.returncode == 0, last.err
    assert await stage.is_true()
    assert 40 <= first < second < 200
    # 20,000 in pages that bring 99 new ones each, a rest and an end: 205. A kill costs a page that was applied but not
    # noted, one in flight, and a look at what came since; starting over would cost 40 at least.
    assert stage.emulator.requests["actions"] <= 205 + 2 * 3
    assert not await stage.redis.exists(KEYS.progress(ROOM))


@pytest.mark.parametrize("seed", [31])
async def test_odd_pages_lose_no_action(stage: Stage, seed: int) -> None:
    """Pages that end early, actions that share a timetoken, slow and failing answers, a kill: nothing is missing."""
    stage.state.faults.random.seed(seed)
    faults = {"more": 0.3, "tie": 0.2, "latency": 0.2, "server_error": 0.01, "drop": 0.01, "bad_json": 0.01}
    stage.state.faults.replace(faults)
    fill(stage, 1_500)

    await kill_after(stage, stage.start("backfill", ROOM), 500)
    last = await stage.do("backfill", ROOM)

    assert last.process.returncode == 0, last.err
    assert await stage.is_true()


async def test_a_range_is_replayed_and_no_more(stage: Stage) -> None:
    """`--since` is inclusive and `--until` exclusive; a date says the same as its timetoken."""
    fill(stage, 300, messages=300)
    since, until = FIRST + 100 * SECOND, FIRST + 200 * SECOND

    ended = await stage.do("backfill", ROOM, "--since", str(since), "--until", str(until), "--json")
    (found,) = (await stage.tallies()).values()
    by_date = await stage.do("backfill", ROOM, "--since", "2025-06-15T15:08:20", "--until", str(until), "--json")

    assert set(found) == {str(int(MESSAGE) + number) for number in range(100, 200)}
    told = json.loads(ended.out)
    assert set(told) == {"channels", "actions"}
    assert told["actions"] == told["channels"][ROOM] >= 100
    assert json.loads(by_date.out) == told


async def test_several_channels_are_replayed_at_once(stage: Stage) -> None:
    """Without an argument it replays all configured (groups looked up) and all ever seen; with one, just that."""
    for channel in ("room", "hall", "team-one", "met", "other"):
        fill(stage, 250, channel=channel, messages=50)
    stage.state.groups.add("team", ["team-one"])
    await stage.redis.sadd("tally:channels", "met")

    named = await stage.do("backfill", "hall")
    only = set(await stage.tallies())
    ended = await stage.do("backfill", "--json", TALLY_CHANNEL_GROUPS="team")

    assert (named.out, only) == (f"{await told_of(stage, ended, 'hall')} actions read in 1 channels.\n", {"hall"})
    assert set(json.loads(ended.out)["channels"]) == {"room", "hall", "team-one", "met"}
    assert await stage.tallies() == {name: of for name, of in stage.emulator.truth().items() if name != "other"}


async def told_of(stage: Stage, ended: Child, channel: str) -> int:
    """Return how many actions a backfill says it read of a channel."""
    return int(json.loads(ended.out)["channels"][channel])


async def test_an_interrupt_leaves_no_traceback(stage: Stage) -> None:
    """Ctrl-C ends with 130 and silence; the place is kept, and the next run ends with the truth."""
    fill(stage, 2_000)
    child = stage.start("backfill", ROOM, TALLY_HISTORY_RATE="5")
    await wait_until(lambda: stage.emulator.requests["actions"] > 6, what=lambda: child.err)

    child.ask(signal.SIGINT)

    assert await child.ended(5) == 130
    assert "Traceback" not in child.err
    assert await applied(stage) > 0, child.err
    await stage.do("backfill", ROOM)
    assert await stage.is_true()


async def test_a_refusal_ends_it_at_once(stage: Stage) -> None:
    """A 403 ends with 3 and PubNub's own word for it, after the other channels were replayed; later it goes on."""
    fill(stage, 150)
    fill(stage, 150, channel="hall")
    stage.state.refuse(["room"])

    refused = await stage.do("backfill", "room", "hall")
    only = set(await stage.tallies())
    stage.state.refuse()
    ended = await stage.do("backfill", "room", "hall")

    assert (refused.process.returncode, ended.process.returncode) == (3, 0)
    assert "answered 403, Forbidden." in refused.err
    assert only == {"hall"}
    assert await stage.is_true()
