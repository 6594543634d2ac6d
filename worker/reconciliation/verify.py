"""Compares tallies with PubNub's list, in two passes; writes nothing.

It also checks whether Redis is consistent in itself.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from random import Random
from typing import Final

from worker.applying.slots import Slots, Urgency
from worker.domain.action import Identity
from worker.domain.position import Range, Timetoken, is_after, shift
from worker.domain.reconciliation import Candidate
from worker.domain.tally import TallyKey
from worker.errors import PubNubError, ScriptRefusedError
from worker.reconciliation.evidence import Comparison
from worker.reconciliation.report import CHANNEL_CONCURRENCY, Discrepancy, VerifyReport
from worker.reconciliation.scan_state import ScanState
from worker.store.audit import Audit, Inconsistency
from worker.store.batch import MAX_BATCH, batched
from worker.store.entries import Entries
from worker.store.tables import Tables
from worker.telemetry import metrics

STRETCHES: Final = 100
"""Stretches of a channel's past, of which a sample takes some."""


@dataclass(frozen=True, slots=True)
class Sample:
    """Which part of a channel's past is compared.

    ``rate`` is from 0 (one stretch) to 1 (everything).
    """

    rate: float
    random: Random

    def stretches(
        self,
        oldest: Timetoken | None,
        now: Timetoken,
    ) -> list[Range]:
        """Return the stretches chosen, at least one of them.

        Without an ``oldest`` there is one: everything.
        """
        if oldest is None or not is_after(now, oldest):
            return [Range()]

        stretches = _stretches(oldest, now)
        chosen = [stretch for stretch in stretches if self.random.random() < self.rate]
        return chosen or [self.random.choice(stretches)]


def _stretches(oldest: Timetoken, now: Timetoken) -> list[Range]:
    """Return all stretches between two timetokens.

    The outer stretches have no end.
    """
    length = (int(now) - int(oldest)) // STRETCHES + 1
    numbers = range(1, STRETCHES)
    cuts = [shift(oldest, length * number) for number in numbers]
    edges = [None, *cuts, None]
    return [Range(since, until) for since, until in pairwise(edges)]


async def verify(
    verifier: "Verifier",
    tables: Tables,
    channels: Sequence[str],
) -> VerifyReport:
    """Compare the channels; set apart what a worker soon repairs by itself.

    A gap may be noticed, or repaid, while the channels are compared.

    Raises:
        RedisUnavailableError: Redis is away.
    """
    before = await tables.pending.read_all(channels)
    report = await verifier.run(channels)
    after = await tables.pending.read_all(channels)
    report.set_apart(before | after, await tables.server.now())
    report.has_worker = await tables.cursors.has_heartbeat()
    differences = len(report.discrepancies) + len(report.flaws)
    metrics.differences.inc(differences)
    return report


class Verifier:
    """Compares channels with PubNub."""

    def __init__(
        self,
        comparison: Comparison,
        entries: Entries,
        audit: Audit,
        sample: Sample,
        slots: Slots,
        pause: Callable[[], Awaitable[None]],
    ) -> None:
        """``pause`` waits before a second pass.

        It holds no slot meanwhile.
        """
        self._comparison = comparison
        self._entries = entries
        self._audit = audit
        self._sample = sample
        self._slots = slots
        self._pause = pause

    async def run(self, channels: Iterable[str]) -> VerifyReport:
        """Compare the channels, some side by side.

        Raises:
            RedisUnavailableError: Redis is away.
        """
        names = sorted(set(channels))
        is_sample = self._sample.rate < 1
        report = VerifyReport(channels=len(names), is_sample=is_sample)
        room = asyncio.Semaphore(CHANNEL_CONCURRENCY)

        async def compare(channel: str) -> None:
            async with room, self._slots.held(Urgency.ROUND):
                try:
                    async with self._entries.damage_named(channel):
                        await self._compare(channel, report)
                except (PubNubError, ScriptRefusedError) as error:
                    report.failures[channel] = str(error)

        await asyncio.gather(*map(compare, names))
        report.flaws = await self._audit_twice(names)
        report.discrepancies.sort()
        return report

    async def _audit_twice(self, channels: Sequence[str]) -> list[Inconsistency]:
        """Return what is inconsistent in Redis, twice in a row.

        A script may have run between two reads of one audit.
        """
        flaws = await self._audit.channels(channels)
        if not flaws:
            return []
        again = set(await self._audit.channels(channels))
        return [flaw for flaw in flaws if flaw in again]

    async def _compare(self, channel: str, report: VerifyReport) -> None:
        for stretch in await self._stretches(channel):
            await self._compare_stretch(channel, stretch, report)

    async def _stretches(self, channel: str) -> list[Range]:
        if self._sample.rate >= 1:
            return [Range()]
        now = await self._comparison.reader.now(channel)
        oldest = await self._entries.oldest(channel)
        return self._sample.stretches(oldest, now)

    async def _compare_stretch(
        self,
        channel: str,
        wanted: Range,
        report: VerifyReport,
    ) -> None:
        scan = await self._comparison.first_pass(channel, wanted)
        report.listed += scan.coverage.actions
        report.entries += len(scan.seen)
        report.unproven += len(scan.coverage.unseen) + scan.is_cut
        if scan.seen.unseen or scan.listed:
            await self._pause()
            report.discrepancies += await self._differences(scan, report)
        report.requests += scan.coverage.requests

    async def _differences(
        self,
        scan: ScanState,
        report: VerifyReport,
    ) -> list[Discrepancy]:
        """Return what differs in a second pass, too."""
        channel = scan.channel
        missing: set[Identity] = set()
        surplus: set[Identity] = set()
        async for candidates in self._comparison.candidates(scan):
            findings = await self._comparison.second_pass(scan, candidates)
            report.unproven += findings.unproven
            live = await self._live(channel, [*findings.absent, *findings.present])
            surplus |= {
                item.identity for item in findings.absent if live[item] == item.action_timetoken
            }
            missing |= {item.identity for item in findings.present if live[item] is None}
            # Two actions of one identity count once.
            # An identity that is listed with another timetoken is no surplus.
            surplus -= {item.identity for item in findings.present}
        kept = await self._comparison.kept(scan, missing | surplus)
        return _by_tally(missing & kept, surplus & kept)

    async def _live(
        self,
        channel: str,
        candidates: Sequence[Candidate],
    ) -> dict[Candidate, Timetoken | None]:
        """Return which action is live for each candidate."""
        live: dict[Candidate, Timetoken | None] = {}
        for batch in batched(candidates, MAX_BATCH):
            identities = [item.identity for item in batch]
            entries = await self._entries.read(channel, identities)
            timetokens = [entry.live for entry in entries]
            live.update(zip(batch, timetokens, strict=True))
        return live


def _by_tally(
    missing: Iterable[Identity],
    surplus: Iterable[Identity],
) -> list[Discrepancy]:
    """Return how many identities of each tally differ."""
    missing_counts = Counter(map(_tally, missing))
    surplus_counts = Counter(map(_tally, surplus))
    tallies = missing_counts.keys() | surplus_counts.keys()
    return [
        Discrepancy(
            channel=tally[0],
            message_timetoken=tally[1],
            type=tally[2],
            value=tally[3],
            missing=missing_counts[tally],
            surplus=surplus_counts[tally],
        )
        for tally in tallies
    ]


def _tally(identity: Identity) -> TallyKey:
    return (
        identity.channel,
        identity.message_timetoken,
        identity.type,
        identity.value,
    )
