"""PubNub's list of a channel held against the entries in Redis: what both looks find. Nothing here writes."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import chain, compress, islice
from typing import Final

from worker.applying.retry import RetryPolicy
from worker.domain.action import Added
from worker.domain.position import TICKS_PER_SECOND, Range, Timetoken, is_after, shift
from worker.domain.reconciliation import Candidate, Coverage, Proof, all_lie_in
from worker.domain.seen_set import EntryKey, SeenSet
from worker.reconciliation.scan import Scanner, additions
from worker.source.history import ListSlice
from worker.store.entries import Entries, Message, entry_keys, identity
from worker.store.keys import action_field

CANDIDATE_BATCH: Final = 20_000
"""Candidates held in memory at a time; more are looked at in turn."""

OTHERS_LOOKED_AT: Final = 1000
ORIGIN_PROBES: Final = 10
"""Other channels that are asked whether PubNub knows us."""
PREFIXES: Final = 256
"""Types and values whose part of a field is remembered: there are few, and escaping them takes longer than all else."""
SWEPT_SECONDS: Final = 2 * 3600.0
"""Within this of the retention's end a message may be forgotten while it is looked at."""

Take = Callable[[ListSlice, Sequence[Added]], Awaitable[bool]]
"""Gets a slice and its additions; tells whether those that were not live before need a closer look."""


@dataclass(slots=True)
class ScanState:
    """What the first look found in one channel."""

    channel: str
    wanted: Range
    began: Timetoken
    """PubNub's clock when it began."""
    horizon: Timetoken
    """Actions from here on are too young to say anything of: lists lag behind."""
    seen: SeenSet = field(default_factory=SeenSet)
    coverage: Coverage = field(default_factory=Coverage)
    listed: set[Candidate] = field(default_factory=set)
    """Actions that are listed, old enough, and not what is live: barred by a tombstone, or shadowed by a newer one."""
    is_cut: bool = False
    """Whether there were more of those than are kept."""
    forgotten: Timetoken | None = None
    """Messages before this are, or will soon be, older than the retention: PubNub lists what is counted no longer."""

    @property
    def due(self) -> Range:
        """Which actions may be judged: those wanted that are older than the horizon."""
        until = self.wanted.until
        return Range(
            self.wanted.since,
            self.horizon if until is None or is_after(until, self.horizon) else until,
        )

    def add(self, messages: Iterable[Message]) -> None:
        """Enter in the seen what is live in Redis, if it may be judged."""
        due = self.due
        for timetoken, fields in messages:
            if self.is_kept(timetoken):
                is_due = all_lie_in(due, fields.values())
                own = (
                    fields
                    if is_due
                    else {field: at for field, at in fields.items() if due.covers(at)}
                )
                self.seen.add(entry_keys((timetoken, own)))

    def wanted_of(self, added: Sequence[Added]) -> Sequence[Added]:
        """Return those of the additions that are asked for, and counted."""
        if self.forgotten is None and all_lie_in(
            self.wanted, [item.action_timetoken for item in added]
        ):
            return added
        return [
            item
            for item in added
            if self.wanted.covers(item.action_timetoken)
            and self.is_kept(item.identity.message_timetoken)
        ]

    def mark_seen(self, added: Iterable[Added]) -> None:
        """Let those who are listed answer the seen."""
        self.seen.mark_seen(map(_entry_key, added))

    def unknown(self, added: Sequence[Added]) -> list[Added]:
        """Return those of the additions that may be judged and were not live before."""
        due, known = self.due, self.seen.has(map(_entry_key, added))
        return [
            item
            for item, is_known in zip(added, known, strict=True)
            if not is_known and due.covers(item.action_timetoken)
        ]

    def is_kept(self, message_timetoken: Timetoken) -> bool:
        """Tell whether a message is counted; one whose timetoken is not of PubNub's length has no age."""
        before = self.forgotten
        return (
            before is None
            or len(message_timetoken) != len(before)
            or not is_after(before, message_timetoken)
        )


class Comparison:
    """Compares channels. What is younger than the settle time is left alone."""

    def __init__(
        self, scanner: Scanner, entries: Entries, policy: RetryPolicy, retention_seconds: float = 0
    ) -> None:
        self._scanner = scanner
        self._entries = entries
        self._policy = policy
        self._retention_seconds = retention_seconds

    async def now(self, channel: str) -> Timetoken:
        """Return PubNub's clock.

        Raises:
            PubNubError: it failed too often.
        """
        return await self._scanner.now(channel)

    async def first_pass(self, channel: str, wanted: Range, take: Take) -> ScanState:
        """Call the seen of what is live in Redis, then read the list.

        Raises:
            PubNubError: PubNub refused, or failed too often.
            RedisUnavailableError: Redis is away; begin again.
            ForgottenError: Redis went back; begin again.
        """
        began = await self._scanner.now(channel)
        scan = ScanState(channel, wanted, began, self._before(began, self._policy.settle_seconds))
        if self._retention_seconds:
            scan.forgotten = self._before(began, max(0.0, self._retention_seconds - SWEPT_SECONDS))
        async for messages in self._entries.scan(channel, wanted.since):
            scan.add(messages)
        scan.seen.close()

        async def take_slice(slice: ListSlice) -> None:
            added = scan.wanted_of(additions(channel, slice, self._policy))
            needs_closer_look = await take(slice, added)
            scan.mark_seen(added)
            if needs_closer_look:
                await self._look_closer(scan, scan.unknown(added))

        await self._scanner.first_pass(
            channel, wanted, scan.coverage, take_slice, is_expected=len(scan.seen) > 0
        )
        return scan

    async def candidates(self, scan: ScanState) -> AsyncIterator[list[Candidate]]:
        """Yield the entries that are live, as they were, and not listed, where the list was read completely."""
        found: set[Candidate] = set()
        async for batch in self._unseen(scan):
            found.update(
                Candidate(identity(scan.channel, entry_key), entry_key[2]) for entry_key in batch
            )
            if len(found) >= CANDIDATE_BATCH:
                yield list(found)
                found = set()
        yield list(found)

    async def count(self, scan: ScanState) -> int:
        """Return how many candidates there are: fewer than did not answer the seen, where users took reactions back."""
        return sum([len(batch) async for batch in self._unseen(scan)])

    async def _unseen(self, scan: ScanState) -> AsyncIterator[list[EntryKey]]:
        if scan.seen.unseen:
            async for messages in self._entries.scan(scan.channel, scan.wanted.since):
                missing = [
                    compress(entry_keys(each), scan.seen.are_unseen(entry_keys(each)))
                    for each in messages
                ]
                yield [
                    entry_key
                    for entry_key in chain.from_iterable(missing)
                    if scan.coverage.has_seen(entry_key[2])
                ]

    async def is_known_origin(self, channel: str, others: Iterable[str]) -> bool:
        """Tell whether PubNub lists anything of other channels that hold reactions; True if no other one does.

        A channel that lists nothing at all may have been emptied. An origin that lists nothing of anybody is not ours.
        """
        asked = 0
        for other in islice(sorted(set(others) - {channel}), OTHERS_LOOKED_AT):
            if not await self._entries.has_any(other):
                continue
            if await self._scanner.is_listed(other):
                return True
            asked += 1
            if asked == ORIGIN_PROBES:
                break
        return not asked

    async def second_pass(
        self, scan: ScanState, candidates: Sequence[Candidate]
    ) -> dict[Candidate, Proof]:
        """Look again; to be called a settle time after the first look at the earliest.

        Raises:
            PubNubError: PubNub refused, or failed too often.
        """
        return await self._scanner.second_pass(
            scan.channel, candidates, scan.coverage, scan.wanted.until
        )

    def _before(self, now: Timetoken, seconds: float) -> Timetoken:
        return shift(now, -round(seconds * TICKS_PER_SECOND))

    async def _look_closer(self, scan: ScanState, added: Sequence[Added]) -> None:
        """Keep those of the listed actions that are not live."""
        entries = await self._entries.read(scan.channel, [item.identity for item in added])
        for item, entry in zip(added, entries, strict=True):
            if entry.live != item.action_timetoken:
                if len(scan.listed) < CANDIDATE_BATCH:
                    scan.listed.add(Candidate(item.identity, item.action_timetoken))
                else:
                    scan.is_cut = True


def _entry_key(item: Added) -> EntryKey:
    identity = item.identity
    return (
        identity.message_timetoken,
        _prefix(identity.type, identity.value) + identity.uuid,
        item.action_timetoken,
    )


@lru_cache(PREFIXES)
def _prefix(type: str, value: str) -> str:
    return action_field(type, value, "")
