"""Are the tallies PubNub's own set of actions? Two looks, nothing written; and does Redis agree with itself?"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from random import Random
from typing import Final

import structlog

from worker.domain.action import Added, Identity
from worker.domain.position import Range, Timetoken, is_after, shift
from worker.domain.reconciliation import Candidate, Verdict
from worker.domain.tally import TallyKey
from worker.errors import ExitCode, PubNubError
from worker.reconciliation.evidence import Comparison, ScanState
from worker.source.history import ListSlice
from worker.store.audit import Audit, Inconsistency
from worker.store.batch import MAX_BATCH
from worker.store.batched import batched
from worker.store.entries import Entries
from worker.telemetry import metrics

CHANNEL_CONCURRENCY: Final = 8
STRETCHES: Final = 100
"""Into how many stretches a channel's past is cut to take a sample of them."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Sample:
    """Which part of a channel's past is looked at: ``rate`` of it, from 0 (nothing but one stretch) to 1 (all)."""

    rate: float
    random: Random

    def stretches(self, oldest: Timetoken | None, now: Timetoken) -> list[Range]:
        """Return the stretches chosen, at least one of them."""
        if self.rate >= 1 or oldest is None or not is_after(now, oldest):
            return [Range()]
        length = (int(now) - int(oldest)) // STRETCHES + 1
        edges = [None, *(shift(oldest, length * place) for place in range(1, STRETCHES)), None]
        all_of_them = [Range(since, until) for since, until in pairwise(edges)]
        chosen = [stretch for stretch in all_of_them if self.random.random() < self.rate]
        return chosen or [self.random.choice(all_of_them)]


@dataclass(frozen=True, slots=True)
class Discrepancy:
    """One tally that is not what PubNub's list says."""

    channel: str
    message_timetoken: Timetoken
    type: str
    value: str
    missing: int
    """Users who are listed and not counted."""
    surplus: int
    """Users who are counted and not listed."""


@dataclass(slots=True)
class VerifyReport:
    """What was found."""

    channels: int = 0
    listed: int = 0
    entries: int = 0
    discrepancies: list[Discrepancy] = field(default_factory=list)
    flaws: list[Inconsistency] = field(default_factory=list)
    unproven: int = 0
    """Entries, or stretches of the list, that nothing could be said of."""
    failures: dict[str, str] = field(default_factory=dict)
    """Channel → why it was not compared to the end."""
    requests: int = 0
    is_sample: bool = False
    """Whether some stretches of these channels were left out, as was asked."""

    @property
    def is_whole(self) -> bool:
        """Whether nothing of these channels was left out, nor in doubt, whatever differs."""
        return not (self.is_sample or self.unproven or self.failures)

    @property
    def is_exact(self) -> bool:
        """Whether everything was compared, and nothing differs."""
        return not (self.discrepancies or self.flaws or self.unproven or self.failures)

    @property
    def exit_code(self) -> ExitCode:
        """How the command ends."""
        if self.discrepancies or self.flaws:
            return ExitCode.DIFFERENCES
        return ExitCode.FAILED if self.unproven or self.failures else ExitCode.DONE


class Verifier:
    """Compares channels with PubNub."""

    def __init__(
        self,
        comparison: Comparison,
        entries: Entries,
        audit: Audit,
        settle_seconds: float,
        choice: Sample,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._comparison = comparison
        self._entries = entries
        self._audit = audit
        self._settle_seconds = settle_seconds
        self._choice = choice
        self._sleep = sleep

    async def run(self, channels: Iterable[str]) -> VerifyReport:
        """Compare the channels, some side by side.

        Raises:
            RedisUnavailableError: Redis is away.
        """
        names = sorted(set(channels))
        found = VerifyReport(len(names), is_sample=self._choice.rate < 1)
        room = asyncio.Semaphore(CHANNEL_CONCURRENCY)

        async def one(channel: str) -> None:
            async with room:
                try:
                    await self._channel(channel, found)
                except PubNubError as error:
                    found.failures[channel] = str(error)

        await asyncio.gather(*map(one, names))
        found.flaws = await self._audit.channels(names)
        if (
            found.flaws
        ):  # a script may have been at work between two looks at two servers; not twice
            again = set(await self._audit.channels(names))
            found.flaws = [flaw for flaw in found.flaws if flaw in again]
        found.discrepancies.sort(
            key=lambda each: (each.channel, each.message_timetoken, each.type, each.value)
        )
        metrics.differences.inc(len(found.discrepancies) + len(found.flaws))
        return found

    async def _channel(self, channel: str, found: VerifyReport) -> None:
        now = await self._comparison.now(channel)
        for wanted in self._choice.stretches(await self._entries.oldest(channel), now):
            scan = await self._comparison.first_pass(channel, wanted, _look_at_all)
            found.listed += scan.coverage.listed
            found.entries += len(scan.seen)
            found.unproven += len(scan.coverage.unseen) + scan.is_cut
            if scan.seen.unseen or scan.listed:
                await self._sleep(self._settle_seconds)
                found.discrepancies += await self._differing(scan, found)
            found.requests += scan.coverage.requests

    async def _differing(self, scan: ScanState, found: VerifyReport) -> list[Discrepancy]:
        """Return what differs in a second look as well."""
        surplus: set[Identity] = set()
        missing: set[Identity] = set()
        async for candidates in self._comparison.candidates(scan):
            proofs = await self._comparison.second_pass(scan, [*candidates, *scan.listed])
            found.unproven += sum(proof.verdict is Verdict.UNPROVEN for proof in proofs.values())
            absent = [each for each in candidates if proofs[each].verdict is Verdict.ABSENT]
            present = [each for each in scan.listed if proofs[each].verdict is Verdict.PRESENT]
            surplus.update(await self._still(scan.channel, absent, live=True))
            missing.update(await self._still(scan.channel, present, live=False))
            # Two actions of one identity count once: who is listed under another timetoken is no surplus.
            surplus.difference_update(each.identity for each in present)
        return _by_tally(missing, surplus)

    async def _still(
        self, channel: str, candidates: Sequence[Candidate], *, live: bool
    ) -> list[Identity]:
        """Return whose entries are, after both looks, still as they were: live with that very action, or not live."""
        still = []
        for some in batched(candidates, MAX_BATCH):
            entries = await self._entries.read(channel, [each.identity for each in some])
            still += [
                each.identity
                for each, entry in zip(some, entries, strict=True)
                if (entry.live == each.action_timetoken if live else entry.live is None)
            ]
        return still


async def _look_at_all(slice: ListSlice, added: Sequence[Added]) -> bool:  # noqa: ARG001 - a Take
    return True


def _by_tally(missing: set[Identity], surplus: set[Identity]) -> list[Discrepancy]:
    counted = [Counter(map(_tally, identities)) for identities in (missing, surplus)]
    return [
        Discrepancy(*key, counted[0][key], counted[1][key])
        for key in sorted(counted[0].keys() | counted[1].keys())
    ]


def _tally(identity: Identity) -> TallyKey:
    return identity.channel, identity.message_timetoken, identity.type, identity.value
