"""Compares PubNub's list of a channel with the entries in Redis.

It writes nothing.
"""

from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
    Mapping,
    Sequence,
)
from dataclasses import dataclass
from typing import Final

from worker.domain.action import Added, Identity
from worker.domain.position import TICKS_PER_SECOND, Range, shift
from worker.domain.reconciliation import Candidate, Proof, Verdict
from worker.reconciliation.list_reader import ListReader, additions
from worker.reconciliation.scan_state import ScanState
from worker.reconciliation.second_pass import SecondPass
from worker.source.history import ListSlice
from worker.store.entries import Entries, identity

CANDIDATE_BATCH: Final = 20_000
"""Candidates in memory at a time."""

TakeAdditions = Callable[[ListSlice, Sequence[Added]], Awaitable[bool]]
"""Gets a slice; tells whether new additions need a closer look."""


@dataclass(frozen=True, slots=True)
class Findings:
    """What two passes prove."""

    absent: Sequence[Candidate]
    """Entries that are live, and proven absent from the list."""
    present: Mapping[Candidate, Proof]
    """Actions that both passes listed, and that were not live."""
    unproven: int
    """How many candidates could neither be proven nor refuted."""
    second: SecondPass

    async def present_again(self) -> AsyncIterator[Mapping[Candidate, Proof]]:
        """Look once more at what is present; yield each as soon as it is proven.

        Raises:
            PubNubError: PubNub refused, or failed too often.
        """
        async for proofs in self.second.prove_each(self.present):
            yield _with_verdict(Verdict.PRESENT, proofs, proofs)


class Comparison:
    """Compares channels.

    Actions younger than the settle time are left alone.
    """

    def __init__(
        self,
        reader: ListReader,
        entries: Entries,
        retention_seconds: int = 0,
    ) -> None:
        self.reader = reader
        self._entries = entries
        self._policy = reader.policy
        self._retention_seconds = retention_seconds

    async def first_pass(
        self,
        channel: str,
        wanted: Range,
        take: TakeAdditions | None = None,
    ) -> ScanState:
        """Read the live entries from Redis, then PubNub's list.

        Without ``take`` all additions get a closer look.

        Raises:
            PubNubError: PubNub refused, or failed too often.
            RedisUnavailableError: Redis is away; begin again.
            RolledBackError: Redis went back; begin again.
        """
        now = await self.reader.now(channel)
        settle_ticks = round(self._policy.settle_seconds * TICKS_PER_SECOND)
        scan = ScanState(
            channel=channel,
            wanted=wanted,
            horizon=shift(now, -settle_ticks),
            forgotten=await self._entries.oldest_kept(self._retention_seconds),
        )
        async for messages in self._entries.scan(channel, wanted.since):
            scan.add(messages)
        scan.seen.close()

        async def take_slice(slice: ListSlice) -> None:
            listed = await additions(channel, slice, self._policy)
            added = scan.wanted_of(listed)
            needs_closer_look = await take(slice, added) if take else True
            scan.mark_seen(added)
            if needs_closer_look:
                await self._look_closer(scan, scan.unknown(added))

        await self.reader.read(
            channel,
            wanted,
            scan.coverage,
            take_slice,
            is_expected=len(scan.seen) > 0,
        )
        return scan

    async def kept(self, scan: ScanState, identities: Iterable[Identity]) -> set[Identity]:
        """Return the identities whose message has not expired meanwhile."""
        scan.forgotten = await self._entries.oldest_kept(self._retention_seconds)
        return {item for item in identities if scan.is_kept(item.message_timetoken)}

    async def _look_closer(
        self,
        scan: ScanState,
        added: Sequence[Added],
    ) -> None:
        """Keep those listed actions that are not live."""
        identities = [item.identity for item in added]
        entries = await self._entries.read(scan.channel, identities)
        for item, entry in zip(added, entries, strict=True):
            timetoken = item.action_timetoken
            if entry.live == timetoken:
                continue
            if len(scan.listed) < CANDIDATE_BATCH:
                scan.listed.add(Candidate(item.identity, timetoken))
            else:
                scan.is_cut = True

    async def candidates(
        self,
        scan: ScanState,
    ) -> AsyncIterator[list[Candidate]]:
        """Yield the entries that are still live and not listed.

        Stretches that were not read completely are left out.
        """
        candidates: set[Candidate] = set()
        if not scan.seen.unseen:
            yield []
            return
        async for messages in self._entries.scan(scan.channel, scan.wanted.since):
            for entry_key in scan.unseen_of(messages):
                owner = identity(scan.channel, entry_key)
                candidates.add(Candidate(owner, entry_key[2]))
            if len(candidates) >= CANDIDATE_BATCH:
                yield list(candidates)
                candidates = set()
        yield list(candidates)

    async def second_pass(
        self,
        scan: ScanState,
        candidates: Sequence[Candidate],
    ) -> Findings:
        """Look again at candidates, and at what is listed but not live.

        Call this a settle time after the first pass at the earliest.

        Raises:
            PubNubError: PubNub refused, or failed too often.
        """
        second = SecondPass(self.reader, scan)
        proofs = await second.prove([*candidates, *scan.listed])
        kept = await self.kept(scan, {item.identity for item in proofs})
        proofs = {item: proof for item, proof in proofs.items() if item.identity in kept}
        verdicts = [proof.verdict for proof in proofs.values()]
        unproven = verdicts.count(Verdict.UNPROVEN)
        absent = _with_verdict(Verdict.ABSENT, candidates, proofs)
        present = _with_verdict(Verdict.PRESENT, scan.listed, proofs)
        return Findings(list(absent), present, unproven, second)


def _with_verdict(
    verdict: Verdict,
    candidates: Iterable[Candidate],
    proofs: Mapping[Candidate, Proof],
) -> dict[Candidate, Proof]:
    """Return those candidates whose proof has that verdict."""
    chosen: dict[Candidate, Proof] = {}
    for candidate in candidates:
        proof = proofs.get(candidate)
        if proof and proof.verdict is verdict:
            chosen[candidate] = proof
    return chosen
