"""PubNub's list of a channel held against the entries in Redis: what both looks find. Nothing here writes."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from worker.domain.action import Added
from worker.domain.position import TICKS_PER_SECOND, Range, Timetoken, is_after, shift
from worker.domain.reconciliation import Candidate, Coverage, RollCall, Verdict
from worker.looks import Looks, additions
from worker.patience import Terms
from worker.source.history import Slice
from worker.store.entries import Entries
from worker.store.keys import action_field

CANDIDATES_AT_ONCE: Final = 20_000
"""Candidates held in memory at a time; more are looked at in turn."""

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


class Comparison:
    """Compares channels. What is younger than the settle time is left alone."""

    def __init__(self, looks: Looks, entries: Entries, terms: Terms) -> None:
        self._looks = looks
        self._entries = entries
        self._terms = terms

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
        look = FirstLook(channel, wanted, began, shift(began, -round(self._terms.settle_seconds * TICKS_PER_SECOND)))
        async for batch in self._entries.scan(channel, wanted.since):
            for entry in batch:
                if self._is_due(look, entry.action_timetoken):
                    look.roll.enter(entry)
        look.roll.close()

        async def take_slice(slice: Slice) -> None:
            added = [item for item in additions(channel, slice, self._terms) if wanted.covers(item.action_timetoken)]
            needs_closer_look = await take(slice, added)
            unknown = [item for item in added if not look.roll.answer(_place(item))]
            if needs_closer_look:
                await self._look_closer(look, [item for item in unknown if self._is_due(look, item.action_timetoken)])

        await self._looks.first(channel, wanted, look.coverage, take_slice, is_expected=len(look.roll) > 0)
        return look

    async def candidates(self, look: FirstLook) -> AsyncIterator[list[Candidate]]:
        """Yield the entries that were live and are not listed, where the list was read completely."""
        found: set[Candidate] = set()
        if look.roll.missing:
            async for batch in self._entries.scan(look.channel, look.wanted.since):
                found.update(
                    Candidate(entry.identity(look.channel), entry.action_timetoken)
                    for entry in batch
                    if look.roll.is_missing(entry) and look.coverage.has_seen(entry.action_timetoken)
                )
                if len(found) >= CANDIDATES_AT_ONCE:
                    yield list(found)
                    found = set()
        yield list(found)

    async def second(self, look: FirstLook, candidates: Sequence[Candidate]) -> dict[Candidate, Verdict]:
        """Look again; to be called a settle time after the first look at the earliest.

        Raises:
            PubNubError: PubNub refused, or failed too often.
        """
        return await self._looks.second(look.channel, candidates, look.coverage, look.wanted.until)

    def _is_due(self, look: FirstLook, action_timetoken: Timetoken) -> bool:
        return is_after(look.horizon, action_timetoken) and look.wanted.covers(action_timetoken)

    async def _look_closer(self, look: FirstLook, added: Sequence[Added]) -> None:
        """Keep those of the listed actions that are not live."""
        entries = await self._entries.read(look.channel, [item.identity for item in added])
        for item, entry in zip(added, entries, strict=True):
            if entry.live != item.action_timetoken:
                if len(look.listed) < CANDIDATES_AT_ONCE:
                    look.listed.add(Candidate(item.identity, item.action_timetoken))
                else:
                    look.is_cut = True


def _place(item: Added) -> tuple[str, str, str]:
    identity = item.identity
    field = action_field(identity.type, identity.value, identity.uuid)
    return identity.message_timetoken, field, item.action_timetoken
