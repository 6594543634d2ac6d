"""Compares PubNub's list of a channel with the entries in Redis; writes nothing."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from worker.applying.retry import RetryPolicy
from worker.domain.action import Added
from worker.domain.position import TICKS_PER_SECOND, Range, Timetoken, shift
from worker.domain.reconciliation import Candidate, EntryKey, Proof, Verdict
from worker.reconciliation.list_reader import additions
from worker.reconciliation.scan import Scanner
from worker.reconciliation.scan_state import ScanState
from worker.source.history import ListSlice
from worker.store.entries import Entries, identity

CANDIDATE_BATCH: Final = 20_000
"""Candidates in memory at a time; more are looked at in turn."""
OTHERS_LOOKED_AT: Final = 1000
"""Other channels that are looked up in Redis, to find some that hold reactions."""
ORIGIN_PROBES: Final = 10
"""Other channels of which PubNub is asked whether it lists anything."""
SWEPT_SECONDS: Final = 2 * 3600.0
"""Within this of the retention's end a message may be deleted while it is looked at."""

TakeAdditions = Callable[[ListSlice, Sequence[Added]], Awaitable[bool]]
"""Gets a slice and its additions.

Returns whether the additions that were not live before need a closer look.
"""


@dataclass(frozen=True, slots=True)
class Findings:
    """What two passes prove."""

    absent: Sequence[Candidate]
    """Entries that are live, and proven absent from the list."""
    present: Mapping[Candidate, Proof]
    """Actions that both passes listed, and that were not live."""
    unproven: int
    """How many candidates could neither be proven nor refuted."""


class Comparison:
    """Compares channels. Actions younger than the settle time are left alone."""

    def __init__(
        self,
        scanner: Scanner,
        entries: Entries,
        policy: RetryPolicy,
        retention_seconds: float = 0,
    ) -> None:
        self._scanner = scanner
        self._entries = entries
        self._policy = policy
        self._retention_seconds = retention_seconds

    async def now(self, channel: str) -> Timetoken:
        """Return PubNub's clock.

        Raises:
            PubNubError: the request failed too often.
        """
        return await self._scanner.reader.now(channel)

    async def first_pass(
        self,
        channel: str,
        wanted: Range,
        take: TakeAdditions,
    ) -> ScanState:
        """Read the live entries from Redis, then PubNub's list.

        Raises:
            PubNubError: PubNub refused, or failed too often.
            RedisUnavailableError: Redis is away; begin again.
            RolledBackError: Redis went back; begin again.
        """
        scan = await self._begin(channel, wanted)
        async for messages in self._entries.scan(channel, wanted.since):
            scan.add(messages)
        scan.seen.close()

        async def take_slice(slice: ListSlice) -> None:
            listed = additions(channel, slice, self._policy.counted_types)
            added = scan.wanted_of(listed)
            needs_closer_look = await take(slice, added)
            scan.mark_seen(added)
            if needs_closer_look:
                await self._look_closer(scan, scan.unknown(added))

        is_expected = len(scan.seen) > 0
        await self._scanner.first_pass(
            channel, wanted, scan.coverage, take_slice, is_expected=is_expected
        )
        return scan

    async def _begin(self, channel: str, wanted: Range) -> ScanState:
        """Return an empty scan that begins now, on PubNub's clock."""
        now = await self.now(channel)
        horizon = _before(now, self._policy.settle_seconds)
        forgotten = None
        if self._retention_seconds:
            age = max(0.0, self._retention_seconds - SWEPT_SECONDS)
            forgotten = _before(now, age)
        return ScanState(channel=channel, wanted=wanted, horizon=horizon, forgotten=forgotten)

    async def _look_closer(self, scan: ScanState, added: Sequence[Added]) -> None:
        """Keep those listed actions that are not live."""
        identities = [item.identity for item in added]
        entries = await self._entries.read(scan.channel, identities)
        for item, entry in zip(added, entries, strict=True):
            if entry.live == item.action_timetoken:
                continue
            if len(scan.listed) < CANDIDATE_BATCH:
                scan.listed.add(Candidate(item.identity, item.action_timetoken))
            else:
                scan.is_cut = True

    async def candidates(self, scan: ScanState) -> AsyncIterator[list[Candidate]]:
        """Yield the entries that are still live and not listed.

        Stretches of the list that were not read completely are left out.
        """
        candidates: set[Candidate] = set()
        async for batch in self._unseen(scan):
            candidates.update(_candidate(scan.channel, key) for key in batch)
            if len(candidates) >= CANDIDATE_BATCH:
                yield list(candidates)
                candidates = set()
        yield list(candidates)

    async def count(self, scan: ScanState) -> int:
        """Return how many candidates there are.

        Entries that users removed meanwhile are no candidates any more.
        """
        count = 0
        async for batch in self._unseen(scan):
            count += len(batch)
        return count

    async def _unseen(self, scan: ScanState) -> AsyncIterator[list[EntryKey]]:
        if not scan.seen.unseen:
            return
        async for messages in self._entries.scan(scan.channel, scan.wanted.since):
            yield scan.unseen_of(messages)

    async def second_pass(
        self,
        scan: ScanState,
        candidates: Sequence[Candidate],
    ) -> Findings:
        """Look again at the candidates, and at the actions that are listed but not live.

        Call this a settle time after the first pass at the earliest.

        Raises:
            PubNubError: PubNub refused, or failed too often.
        """
        until = scan.wanted.until
        wanted = [*candidates, *scan.listed]
        proofs = await self._scanner.second_pass(scan.channel, wanted, scan.coverage, until)

        verdicts = {candidate: proof.verdict for candidate, proof in proofs.items()}
        absent = [item for item in candidates if verdicts[item] is Verdict.ABSENT]
        present = [item for item in scan.listed if verdicts[item] is Verdict.PRESENT]
        return Findings(
            absent=absent,
            present={item: proofs[item] for item in present},
            unproven=list(verdicts.values()).count(Verdict.UNPROVEN),
        )

    async def is_known_origin(self, channel: str, others: Iterable[str]) -> bool:
        """Tell whether PubNub lists anything of other channels that hold reactions.

        A channel that lists nothing at all may have been emptied.
        An origin that lists nothing of any channel is a wrong one.
        If no other channel holds reactions, the answer is True.
        """
        asked = 0
        names = sorted(set(others) - {channel})
        for other in names[:OTHERS_LOOKED_AT]:
            if not await self._entries.has_any(other):
                continue
            if await self._scanner.reader.is_listed(other):
                return True
            asked += 1
            if asked == ORIGIN_PROBES:
                break
        return asked == 0


def _before(now: Timetoken, seconds: float) -> Timetoken:
    return shift(now, -round(seconds * TICKS_PER_SECOND))


def _candidate(channel: str, entry_key: EntryKey) -> Candidate:
    return Candidate(identity(channel, entry_key), entry_key[2])
