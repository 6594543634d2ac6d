"""PubNub's list of a channel held against the entries in Redis: what both looks find. Nothing here writes."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import chain, compress, islice
from typing import Final

from worker.applying.retry import Terms
from worker.domain.action import Added
from worker.domain.position import TICKS_PER_SECOND, Range, Timetoken, is_after, shift
from worker.domain.reconciliation import Candidate, Coverage, Place, Proof, RollCall, all_lie_in
from worker.reconciliation.scan import Looks, additions
from worker.source.history import Slice
from worker.store.entries import Entries, Message, identity, places
from worker.store.keys import action_field

CANDIDATES_AT_ONCE: Final = 20_000
"""Candidates held in memory at a time; more are looked at in turn."""

OTHERS_LOOKED_AT: Final = 1000
WITNESSES: Final = 10
"""Other channels that are asked whether PubNub knows us."""
PREFIXES: Final = 256
"""Types and values whose part of a field is remembered: there are few, and escaping them takes longer than all else."""
SWEPT_SECONDS: Final = 2 * 3600.0
"""Within this of the retention's end a message may be forgotten while it is looked at."""

Take = Callable[[Slice, Sequence[Added]], Awaitable[bool]]
"""Gets a slice and its additions; tells whether those that were not live before need a closer look."""


@dataclass(slots=True)
class FirstLook:
    """What the first look found in one channel."""

    channel: str
    wanted: Range
    began: Timetoken
    """PubNub's clock when it began."""
    horizon: Timetoken
    """Actions from here on are too young to say anything of: lists lag behind."""
    roll: RollCall = field(default_factory=RollCall)
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
        return Range(self.wanted.since, self.horizon if until is None or is_after(until, self.horizon) else until)

    def enter(self, messages: Iterable[Message]) -> None:
        """Enter in the roll what is live in Redis, if it may be judged."""
        due = self.due
        for timetoken, fields in messages:
            if self.is_kept(timetoken):
                is_due = all_lie_in(due, fields.values())
                own = fields if is_due else {field: at for field, at in fields.items() if due.covers(at)}
                self.roll.enter(places((timetoken, own)))

    def wanted_of(self, added: Sequence[Added]) -> Sequence[Added]:
        """Return those of the additions that are asked for, and counted."""
        if self.forgotten is None and all_lie_in(self.wanted, [item.action_timetoken for item in added]):
            return added
        return [
            item
            for item in added
            if self.wanted.covers(item.action_timetoken) and self.is_kept(item.identity.message_timetoken)
        ]

    def answer(self, added: Iterable[Added]) -> None:
        """Let those who are listed answer the roll."""
        self.roll.answer(map(_place, added))

    def unknown(self, added: Sequence[Added]) -> list[Added]:
        """Return those of the additions that may be judged and were not live before."""
        due, known = self.due, self.roll.has(map(_place, added))
        return [
            item
            for item, is_known in zip(added, known, strict=True)
            if not is_known and due.covers(item.action_timetoken)
        ]

    def is_kept(self, message_timetoken: Timetoken) -> bool:
        """Tell whether a message is counted; one whose timetoken is not of PubNub's length has no age."""
        before = self.forgotten
        return before is None or len(message_timetoken) != len(before) or not is_after(before, message_timetoken)


class Comparison:
    """Compares channels. What is younger than the settle time is left alone."""

    def __init__(self, looks: Looks, entries: Entries, terms: Terms, retention_seconds: float = 0) -> None:
        self._looks = looks
        self._entries = entries
        self._terms = terms
        self._retention_seconds = retention_seconds

    async def now(self, channel: str) -> Timetoken:
        """Return PubNub's clock.

        Raises:
            PubNubError: it failed too often.
        """
        return await self._looks.now(channel)

    async def first(self, channel: str, wanted: Range, take: Take) -> FirstLook:
        """Call the roll of what is live in Redis, then read the list.

        Raises:
            PubNubError: PubNub refused, or failed too often.
            RedisUnavailableError: Redis is away; begin again.
            ForgottenError: Redis went back; begin again.
        """
        began = await self._looks.now(channel)
        look = FirstLook(channel, wanted, began, self._before(began, self._terms.settle_seconds))
        if self._retention_seconds:
            look.forgotten = self._before(began, max(0.0, self._retention_seconds - SWEPT_SECONDS))
        async for messages in self._entries.scan(channel, wanted.since):
            look.enter(messages)
        look.roll.close()

        async def take_slice(slice: Slice) -> None:
            added = look.wanted_of(additions(channel, slice, self._terms))
            needs_closer_look = await take(slice, added)
            look.answer(added)
            if needs_closer_look:
                await self._look_closer(look, look.unknown(added))

        await self._looks.first(channel, wanted, look.coverage, take_slice, is_expected=len(look.roll) > 0)
        return look

    async def candidates(self, look: FirstLook) -> AsyncIterator[list[Candidate]]:
        """Yield the entries that are live, as they were, and not listed, where the list was read completely."""
        found: set[Candidate] = set()
        async for batch in self._missing(look):
            found.update(Candidate(identity(look.channel, place), place[2]) for place in batch)
            if len(found) >= CANDIDATES_AT_ONCE:
                yield list(found)
                found = set()
        yield list(found)

    async def count(self, look: FirstLook) -> int:
        """Return how many candidates there are: fewer than did not answer the roll, where users took reactions back."""
        return sum([len(batch) async for batch in self._missing(look)])

    async def _missing(self, look: FirstLook) -> AsyncIterator[list[Place]]:
        if look.roll.missing:
            async for messages in self._entries.scan(look.channel, look.wanted.since):
                missing = [compress(places(each), look.roll.are_missing(places(each))) for each in messages]
                yield [place for place in chain.from_iterable(missing) if look.coverage.has_seen(place[2])]

    async def is_known_here(self, channel: str, others: Iterable[str]) -> bool:
        """Tell whether PubNub lists anything of other channels that hold reactions; True if no other one does.

        A channel that lists nothing at all may have been emptied. An origin that lists nothing of anybody is not ours.
        """
        asked = 0
        for other in islice(sorted(set(others) - {channel}), OTHERS_LOOKED_AT):
            if not await self._entries.has_any(other):
                continue
            if await self._looks.is_listed(other):
                return True
            asked += 1
            if asked == WITNESSES:
                break
        return not asked

    async def second(self, look: FirstLook, candidates: Sequence[Candidate]) -> dict[Candidate, Proof]:
        """Look again; to be called a settle time after the first look at the earliest.

        Raises:
            PubNubError: PubNub refused, or failed too often.
        """
        return await self._looks.second(look.channel, candidates, look.coverage, look.wanted.until)

    def _before(self, now: Timetoken, seconds: float) -> Timetoken:
        return shift(now, -round(seconds * TICKS_PER_SECOND))

    async def _look_closer(self, look: FirstLook, added: Sequence[Added]) -> None:
        """Keep those of the listed actions that are not live."""
        entries = await self._entries.read(look.channel, [item.identity for item in added])
        for item, entry in zip(added, entries, strict=True):
            if entry.live != item.action_timetoken:
                if len(look.listed) < CANDIDATES_AT_ONCE:
                    look.listed.add(Candidate(item.identity, item.action_timetoken))
                else:
                    look.is_cut = True


def _place(item: Added) -> Place:
    identity = item.identity
    return identity.message_timetoken, _prefix(identity.type, identity.value) + identity.uuid, item.action_timetoken


@lru_cache(PREFIXES)
def _prefix(type: str, value: str) -> str:
    return action_field(type, value, "")
