"""The second pass: is an action in doubt listed, or proven absent?"""

from collections.abc import (
    AsyncIterator,
    Collection,
    Iterable,
    Iterator,
    Sequence,
)
from contextlib import aclosing
from dataclasses import dataclass, field
from itertools import groupby
from typing import Final

from worker.domain.position import (
    TICKS_PER_SECOND,
    Timetoken,
    is_after,
    order,
    shift,
)
from worker.domain.reconciliation import (
    Candidate,
    Coverage,
    Proof,
    Verdict,
    age,
    judge,
)
from worker.reconciliation.list_reader import ListReader, additions
from worker.reconciliation.scan_state import ScanState
from worker.source.history import ListSlice

EDGES_UP: Final = (1, 4, 16)
"""Where a walk begins: so many edges above a candidate.

One walk is tried after the other.
"""
LONGEST_STEPS: Final = 12
"""Starts above the range, each eight times as far as the one before.

The last start is now.
"""


@dataclass(slots=True, kw_only=True)
class Walk:
    """What one walk down the list shows of some candidates."""

    wanted: Sequence[Candidate]
    coverage: Coverage
    """What the first pass has seen."""
    is_top: bool
    """Whether the walk began at the present: nothing is above it."""
    is_whole: bool = False
    """Whether the walk came to the end of the list."""
    seen: list[Timetoken] = field(default_factory=list)
    """The newest and the oldest timetoken of each slice."""
    proofs: dict[Candidate, Proof] = field(default_factory=dict)

    @property
    def left(self) -> list[Candidate]:
        """The candidates of which nothing is proven yet."""
        return _without(self.wanted, self.proofs)

    def take(self, slice: ListSlice, listed: Collection[Candidate]) -> None:
        """Note what a slice proves.

        ``listed`` are its additions.
        """
        span = slice.span or ()
        verdicts = judge(listed, span, self.left)
        for candidate, verdict in verdicts.items():
            self.proofs[candidate] = Proof(verdict, slice.asked_at, slice.received_at)
        self.seen += reversed(span)

    def is_over(self, slice: ListSlice) -> bool:
        """Tell whether to read no further after this slice.

        If the last candidate is passed, and was not between two items
        of one slice, another walk must begin further up.
        """
        left = self.left
        if not left or not slice.is_certain:
            return True
        if not slice.span:
            return False
        oldest_candidate = left[-1].action_timetoken
        return is_after(oldest_candidate, self.seen[-1])

    def conclude(self, at: float) -> dict[Candidate, Proof]:
        """Return the proofs.

        Where the list has nothing left to bracket a candidate with,
        the two passes decide: the candidate is absent.
        """
        for candidate in self.left:
            if _nothing_brackets(candidate, self):
                self.proofs[candidate] = Proof(Verdict.ABSENT, at, at)
        return self.proofs


class SecondPass:
    """The second pass over one channel's list."""

    def __init__(
        self,
        reader: ListReader,
        scan: ScanState,
    ) -> None:
        """``scan`` is what the first pass has found."""
        self.is_any_listed = False
        """Whether any action was listed."""
        self._reader = reader
        self._policy = reader.policy
        self._channel = scan.channel
        self._coverage = scan.coverage
        self._until = scan.wanted.until

    async def prove(
        self,
        wanted: Collection[Candidate],
    ) -> dict[Candidate, Proof]:
        """Return a proof of each candidate.

        Its verdict may be ``UNPROVEN``.

        Raises:
            PubNubError: a request failed too often, or was refused.
        """
        now = self._policy.clock()
        unproven = Proof(Verdict.UNPROVEN, now, now)
        proofs = dict.fromkeys(wanted, unproven)
        async for proven in self.prove_each(wanted):
            proofs |= proven
        return proofs

    async def prove_each(
        self,
        wanted: Collection[Candidate],
    ) -> AsyncIterator[dict[Candidate, Proof]]:
        """Yield the proofs of neighbours, which lie below the same edge.

        Raises:
            PubNubError: as ``prove`` does.
        """
        newest_first = sorted(wanted, key=age, reverse=True)
        for _, neighbours in groupby(newest_first, key=self._edge_above):
            yield await self._prove_neighbours(list(neighbours))

    def _edge_above(self, candidate: Candidate) -> Timetoken | None:
        return self._coverage.above(candidate.action_timetoken, 1)

    async def _prove_neighbours(
        self,
        candidates: list[Candidate],
    ) -> dict[Candidate, Proof]:
        """Walk down from one start after the other.

        Stop when everything is proven.
        """
        proofs: dict[Candidate, Proof] = {}
        left = candidates
        newest = candidates[0].action_timetoken
        for start, is_top in await self._starts(newest):
            proofs |= await self._walk(left, start, is_top=is_top)
            left = _without(left, proofs)
            if not left:
                break
        return proofs

    async def _starts(self, at: Timetoken) -> list[tuple[Timetoken, bool]]:
        """Return where to begin, one after the other.

        The last one is the present, and has True.
        """
        settle_seconds = self._policy.settle_seconds
        settle_ticks = round(settle_seconds * TICKS_PER_SECOND)
        now = shift(await self._reader.now(self._channel), settle_ticks)

        edges = [self._coverage.above(at, steps) for steps in EDGES_UP]
        starts = [shift(edge, 1) for edge in edges if edge]
        if self._until is not None:
            starts += _further(self._until, now, settle_seconds)

        below = [(start, False) for start in starts]
        return [*below, (now, True)]

    async def _walk(
        self,
        wanted: Sequence[Candidate],
        start: Timetoken,
        *,
        is_top: bool,
    ) -> dict[Candidate, Proof]:
        """Read on from ``start`` until all candidates are passed.

        Return what is proven.
        """
        walk = Walk(wanted=wanted, coverage=self._coverage, is_top=is_top)
        slices = self._reader.slices(
            self._channel,
            start,
            self._coverage,
            is_expected=True,  # an empty answer is asked for again
        )
        async with aclosing(slices):
            async for slice in slices:
                if slice is None:
                    walk.is_whole = True
                    break
                walk.take(slice, await self._listed(slice))
                self.is_any_listed |= bool(slice.actions)
                if walk.is_over(slice):
                    break
        return walk.conclude(self._policy.clock())

    async def _listed(self, slice: ListSlice) -> set[Candidate]:
        added = await additions(self._channel, slice, self._policy)
        return {Candidate(item.identity, item.action_timetoken) for item in added}


def _without(
    candidates: Iterable[Candidate],
    proofs: Collection[Candidate],
) -> list[Candidate]:
    """Return the candidates that have no proof."""
    return [candidate for candidate in candidates if candidate not in proofs]


def _further(
    until: Timetoken,
    now: Timetoken,
    settle_seconds: float,
) -> Iterator[Timetoken]:
    """Yield starts above ``until``, further and further up."""
    step = round(max(1.0, settle_seconds) * TICKS_PER_SECOND)
    for power in range(LONGEST_STEPS):
        start = shift(until, step * 8**power)
        if not is_after(now, start):
            return
        yield start


def _nothing_brackets(candidate: Candidate, walk: Walk) -> bool:
    """Tell whether nothing is listed above, or below a candidate.

    An empty list proves nothing, unless the first pass saw nothing either.
    """
    if not walk.seen:
        return walk.is_top and walk.is_whole and not walk.coverage.listed
    at = candidate.action_timetoken
    newest = max(walk.seen, key=order)
    oldest = min(walk.seen, key=order)
    # A candidate may share the timetoken of the newest or the oldest item.
    # Pages overlap by one timetoken, so all items of that timetoken were shown.
    is_above = walk.is_top and not is_after(newest, at)
    is_below = walk.is_whole and not is_after(at, oldest)
    return is_above or is_below
