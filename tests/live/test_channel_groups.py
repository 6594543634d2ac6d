"""A channel that joins a group is owed a repair of its past, once."""

import asyncio
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager

import pytest

from tests.bench.bench import Bench
from tests.bench.replaying import backfill, seed
from tests.bench.subscriptions import running_subscription
from tests.bench.waiting import wait_until_true
from tests.waiting import wait_until
from worker.domain.position import Range
from worker.live.channel_groups import GroupMembers
from worker.live.gaps import Gaps
from worker.source.names import Names


@pytest.fixture(autouse=True)
def frequent_lookups(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look groups up every moment."""
    monkeypatch.setattr("worker.live.channel_groups.LOOKUP_SECONDS", 0.02)


class Lookups:
    """Lookups of groups, and the repairs that they ask for."""

    def __init__(self, bench: Bench, *groups: str) -> None:
        self.bench = bench
        self.asked: list[tuple[set[str], Range | None]] = []
        self.backfiller = backfill(bench, tries=None)
        self.membership = GroupMembers(groups, bench.client, Gaps(bench.tables, self._repair))

    async def _repair(self, channels: Collection[str], stretch: Range | None) -> None:
        self.asked.append((set(channels), stretch))
        for channel in channels:
            await self.backfiller.replay(channel, stretch)

    async def look_up(self, times: int = 3) -> None:
        """Wait until the groups were looked up so often from now on."""
        requests = self.bench.emulator.requests
        until = requests["groups"] + times
        await wait_until(lambda: requests["groups"] >= until)

    async def has_asked(self, times: int) -> None:
        """Wait until so many repairs were asked for."""
        await wait_until(lambda: len(self.asked) == times)

    async def owed(self, channel: str) -> set[str]:
        """Return why a channel needs a repair."""
        return set(await self.bench.tables.pending.read(channel))

    @property
    def channels(self) -> list[set[str]]:
        """The channels of each repair that was asked for."""
        return [channels for channels, _ in self.asked]


@asynccontextmanager
async def running_lookups(bench: Bench, *groups: str) -> AsyncIterator[Lookups]:
    """Look groups up until the block ends, and backfill what is asked for."""
    lookups = Lookups(bench, *groups)
    task = asyncio.create_task(lookups.membership.run())
    try:
        await lookups.look_up(2 * len(groups))
        yield lookups
        assert not task.done()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_joining_channel_is_backfilled_once(bench: Bench) -> None:
    """The backfill reaches up to its joining. No other channel is owed anything."""
    seed(bench, "hall", 30)
    bench.emulator.state.groups.add("friends", ["room"])
    await bench.tables.channels.add(["room"])
    async with running_lookups(bench, "friends") as lookups:
        joined = bench.emulator.state.time.now()
        bench.emulator.state.groups.add("friends", ["hall"])
        await wait_until_true(lambda: lookups.owed("hall"), {"new_channel"})
        marked = await bench.tables.pending.read("hall")
        await lookups.look_up(5)
        await wait_until_true(bench.counts, bench.emulator.truth())

        assert lookups.channels == [{"hall"}]
        stretch = lookups.asked[0][1]
        assert stretch
        assert stretch.until
        assert int(stretch.until) >= joined
        assert await bench.tables.pending.read("hall") == marked
        assert await lookups.owed("room") == set()
        assert await bench.tables.channels.all() == {"room", "hall"}


async def test_a_returning_channel_is_owed_again(bench: Bench) -> None:
    """It is known, but was not followed meanwhile."""
    bench.emulator.state.groups.add("friends", ["room", "hall"])
    await bench.tables.channels.add(["room", "hall"])
    async with running_lookups(bench, "friends") as lookups:
        for times in (1, 2):
            before = (await bench.tables.pending.read("hall")).get("new_channel", 0)
            bench.emulator.state.groups.remove("friends", ["hall"])
            await lookups.look_up()
            assert len(lookups.asked) == times - 1
            bench.emulator.state.groups.add("friends", ["hall"])
            await lookups.has_asked(times)
            assert (await bench.tables.pending.read("hall"))["new_channel"] > before
            await lookups.look_up()

        assert lookups.channels == [{"hall"}, {"hall"}]
        assert await lookups.owed("room") == set()


@pytest.mark.parametrize("trouble", ["refused", "away"])
async def test_an_unknown_group_stops_no_other(bench: Bench, trouble: str) -> None:
    """The other groups are looked up. When the group is back, its members count as old."""
    state = bench.emulator.state
    state.groups.add("friends", ["room"])
    state.groups.add("family", ["hall"])
    await bench.tables.channels.add(["room", "hall"])
    async with running_lookups(bench, "friends", "family") as lookups:
        if trouble == "refused":
            state.refuse(groups=["friends"])
            state.groups.add("family", ["yard"])
            await wait_until_true(lambda: lookups.owed("yard"), {"new_channel"})
            state.refuse()
        else:
            state.set_outage("server_error")
            asked = bench.emulator.requests["time"]
            await wait_until(lambda: bench.emulator.requests["time"] > asked + 4)
            state.set_outage(None)
            state.groups.add("family", ["yard"])
            await wait_until_true(lambda: lookups.owed("yard"), {"new_channel"})
        await lookups.look_up(6)
        assert lookups.channels == [{"yard"}]

        state.groups.add("friends", ["attic"])
        await wait_until_true(lambda: lookups.owed("attic"), {"new_channel"})
        await wait_until(lambda: len(lookups.channels) > 1)
        assert lookups.channels == [{"yard"}, {"attic"}]


async def test_a_channel_that_joins_an_unknown_group_is_owed(bench: Bench) -> None:
    """A group is compared with its newest known members.

    Without any, its members are compared with the channels ever seen.
    """
    state = bench.emulator.state
    state.groups.add("friends", ["room"])
    await bench.tables.channels.add(["room", "hall"])
    state.refuse(groups=["family"])
    state.groups.add("family", ["room", "cellar"])
    async with running_lookups(bench, "friends", "family") as lookups:
        state.refuse(groups=["friends", "family"])
        await lookups.look_up(4)
        state.groups.add("friends", ["hall"])
        await lookups.look_up(4)
        assert lookups.asked == []
        state.refuse()

        await wait_until_true(lambda: lookups.owed("hall"), {"new_channel"})
        await wait_until_true(lambda: lookups.owed("cellar"), {"new_channel"})
        await lookups.look_up(6)
        assert sorted(map(sorted, lookups.channels)) == [["cellar"], ["hall"]]


async def test_a_start_marks_members_once(bench: Bench) -> None:
    """The subscription marks them. The first lookup finds no new ones."""
    bench.emulator.state.groups.add("friends", ["room", "hall"])
    async with running_subscription(bench, Names(groups=("friends",))) as subscription:
        await wait_until(lambda: bool(subscription.repairs))
        marked = await bench.tables.pending.read_all(["room", "hall"])
        async with running_lookups(bench, "friends") as lookups:
            await lookups.look_up(5)
            assert lookups.asked == []

        assert [channels for channels, _ in subscription.repairs] == [{"room", "hall"}]
        assert await bench.tables.pending.read_all(["room", "hall"]) == marked
        assert {cause for owed in marked.values() for cause in owed} == {"first_start"}


async def test_a_restart_marks_new_members_only(bench: Bench) -> None:
    """A member that was never seen joined while no worker ran."""
    bench.emulator.state.groups.add("friends", ["room"])
    async with running_subscription(bench, Names(groups=("friends",))):
        pass
    await bench.tables.pending.clear("room", await bench.tables.pending.read("room"))
    bench.emulator.state.groups.add("friends", ["hall"])

    async with (
        running_subscription(bench, Names(groups=("friends",))) as subscription,
        running_lookups(bench, "friends") as lookups,
    ):
        await wait_until_true(lambda: lookups.owed("hall"), {"new_channel"})
        await lookups.look_up(5)
        assert subscription.repairs == []
        assert lookups.channels == [{"hall"}]
        assert await lookups.owed("room") == set()
