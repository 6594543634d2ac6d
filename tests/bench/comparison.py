"""Reconcile and verify on a bench, where settle times pass at once."""

import random
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

from tests.bench.bench import KEYS, SETTLE_SECONDS, Bench, backoff
from worker.applying.retry import RetryPolicy
from worker.applying.slots import Slots
from worker.domain.action import Added, Identity, Origin
from worker.domain.reconciliation import Limit
from worker.emulator import Page, Window
from worker.reconciliation.consistency import Consistency
from worker.reconciliation.corrections import Corrections
from worker.reconciliation.evidence import Comparison
from worker.reconciliation.list_reader import ListReader
from worker.reconciliation.origin_check import OriginCheck
from worker.reconciliation.prune_limit import PruneLimit
from worker.reconciliation.reconcile import Reconciler
from worker.reconciliation.repair import Repair
from worker.reconciliation.report import ReconcilePolicy
from worker.reconciliation.verify import Sample, Verifier
from worker.source.history import History
from worker.store.audit import Audit
from worker.store.entries import Entries

MESSAGE = "17600000001728660"

Odd = Callable[[str, Window], Page | None]
"""What PubNub answers instead of a page of a channel's list; None where it answers as ever."""


def answer_oddly(bench: Bench, odd: Odd) -> None:
    """Let PubNub answer so from now on."""
    state = bench.emulator.state
    ever = state.page

    def page(channel: str, window: Window) -> Page:
        instead = odd(channel, window)
        return ever(channel, window) if instead is None else instead

    cast("Any", state).page = page


class PassingSlots(Slots):
    """Slots for tasks that let a settle time pass at once."""

    def __init__(self, pass_time: Callable[[float], Awaitable[None]]) -> None:
        super().__init__()
        self._pass_time = pass_time

    async def pause(self, seconds: float) -> None:
        """Let the time pass."""
        await self._pass_time(seconds)


@dataclass
class ComparisonBench:
    """A bench, and what happens between the two passes."""

    bench: Bench
    between: Callable[[], None] = lambda: None
    meanwhile: Callable[[], Awaitable[object]] | None = None
    requests: int = 0
    tries: int | None = None
    retention_seconds: int = 0
    asking: Callable[[], Awaitable[object]] | None = None
    """What happens before each request for a list."""

    def __post_init__(self) -> None:
        self.entries = Entries(self.bench.redis, KEYS)
        self.limit = Limit(0.2, 20)

    def comparison(self) -> Comparison:
        """Return the comparison."""
        bench = self.bench

        async def take() -> None:
            self.requests += 1
            if self.asking:
                await self.asking()

        async def hold(seconds: float) -> None: ...

        policy = RetryPolicy(
            counted_types=bench.counted_types,
            forgotten_users=bench.applier.forgotten_users.current,
            backoff=backoff,
            hold=hold,
            clock=bench.clock,
            settle_seconds=SETTLE_SECONDS,
            tries=self.tries,
        )
        reader = ListReader(History(bench.client, take, bench.clock), bench.client.time, policy)
        return Comparison(reader, self.entries, self.retention_seconds)

    def reconcile(self) -> Reconciler:
        """Return a reconciler."""
        bench, entries, comparison = self.bench, self.entries, self.comparison()
        policy = ReconcilePolicy(
            SETTLE_SECONDS, bench.clock, PassingSlots(self.pass_time), lambda _, until: until
        )
        corrections = Corrections(entries, bench.applier, bench.clock)
        origin = OriginCheck(comparison.reader, entries, bench.tables, bench.clock)
        limit = PruneLimit(self.limit, entries, bench.tables, origin)
        consistency = Consistency(entries, Audit(bench.redis, KEYS), bench.store)
        repair = Repair(comparison, corrections, limit, bench.applier, policy, consistency)
        detector = bench.applier.rollback_detector
        return Reconciler(repair, bench.tables, detector, policy, consistency)

    def verify(self, sample: float = 1) -> Verifier:
        """Return a verifier."""
        audit = Audit(self.bench.redis, KEYS)
        choice = Sample(sample, random.Random(3))
        slots = PassingSlots(self.pass_time)
        pause = partial(slots.pause, SETTLE_SECONDS)
        return Verifier(self.comparison(), self.entries, audit, choice, slots, pause)

    async def pass_time(self, seconds: float) -> None:
        """Let the settle time pass, and what is planned happen."""
        self.bench.emulator.state.advance(seconds)
        self.between()
        if self.meanwhile:
            await self.meanwhile()

    def add(
        self, user: str, value: str = "👍", channel: str = "room", *, at: int | None = None
    ) -> int:
        """Let a user react; return the action timetoken."""
        change = self.bench.emulator.state.add(channel, MESSAGE, "reaction", value, user, at=at)
        return change.actions[-1].timetoken

    def remove(self, user: str, action_timetoken: int, channel: str = "room") -> None:
        """Remove a reaction; no worker receives the event."""
        self.bench.emulator.state.remove(channel, MESSAGE, action_timetoken, user)

    def lose_removals(self, actions: Sequence[int], gone: Iterable[int]) -> None:
        """Remove these of the reactions without an event; let some time pass."""
        for number in gone:
            self.remove(f"user{number}", actions[number])
        self.bench.emulator.state.advance(2 * SETTLE_SECONDS)

    async def knows(self, count: int, channel: str = "room") -> list[int]:
        """Let users react and Redis count them, long ago.

        Return the action timetokens.
        """
        actions = [self.add(f"user{number}", channel=channel) for number in range(count)]
        await self.catches_up(channel)
        return actions

    async def owes_since_long(self, cause: str, channel: str = "room") -> None:
        """Mark a gap of long ago."""
        await cast("Any", self.bench.redis).hset(KEYS.owed(channel), cause, 1000)

    async def applies_everything(self, channel: str = "room") -> None:
        """Apply every action of the list, as live events would."""
        events = [
            Added(
                Identity(channel, action.identity.message_timetoken, *action.identity[1:]),
                str(action.timetoken),
                str(action.timetoken),
            )
            for action in self.bench.emulator.state.actions(channel)
        ]
        await self.bench.applier.apply(events, Origin.LIVE, self.bench.clock())

    async def catches_up(self, channel: str = "room") -> None:
        """Apply the list, and let time pass until everything is old enough to be judged."""
        await self.bench.tables.channels.add([channel])
        await self.applies_everything(channel)
        self.bench.emulator.state.advance(2 * SETTLE_SECONDS)

    async def expect_exact(self) -> None:
        """Expect Redis to hold PubNub's truth."""
        assert await self.bench.counts() == self.bench.emulator.truth()

    async def expect_all_listed(self, channel: str = "room") -> None:
        """Expect every listed user of a channel to be counted."""
        actions = self.bench.emulator.state.actions(channel)
        listed = [Identity(channel, *action.identity) for action in actions]
        entries = await self.entries.read(channel, listed)
        assert all(entry.live for entry in entries)
