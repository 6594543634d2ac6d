"""Pages of a channel's actions, with the faults of lists."""

from dataclasses import dataclass
from operator import attrgetter
from typing import Final

from worker.emulator.actions import Action, ChannelActions
from worker.emulator.faults import Fault, Faults
from worker.emulator.timetokens import TICKS_PER_SECOND

MAX_ITEMS: Final = 100
NEVER: Final = 10**20
"""Newer than every timetoken."""


@dataclass(frozen=True, slots=True)
class Window:
    """The range of a page: from ``end`` (inclusive) to ``start`` (exclusive).

    The page has the newest ``limit`` actions of it.
    """

    start: int | None = None
    end: int | None = None
    limit: int = MAX_ITEMS

    @property
    def ticks(self) -> range:
        """The timetokens between the bounds."""
        oldest = self.end or 0
        return range(oldest, NEVER if self.start is None else self.start)


@dataclass(frozen=True, slots=True)
class Page:
    """A page's actions, ascending by timetoken.

    ``more`` is the start of the next page if the server stopped early.
    """

    actions: tuple[Action, ...]
    more: int | None = None


class History:
    """Cuts pages out of a channel's actions.

    The client's own limit leaves no sign, so a full page proves nothing.
    """

    def __init__(self, faults: Faults) -> None:
        self._faults = faults

    def page(self, actions: ChannelActions, window: Window, now: int) -> Page:
        """Return one page as of ``now``, in ticks."""
        if self._faults.strikes(Fault.EMPTY):
            return Page(())
        listed = self._listed(actions, window, now)
        if listed and self._faults.strikes(Fault.PARTIAL):
            listed = self._part_of(listed)
        if len(listed) > 2 and self._faults.strikes(Fault.MORE):
            return self._cut_short(listed)
        return Page(tuple(listed))

    def _listed(
        self,
        actions: ChannelActions,
        window: Window,
        now: int,
    ) -> list[Action]:
        if not self._faults.strikes(Fault.STALE):
            return actions.within(window.ticks, window.limit)
        seconds = self._faults.random.uniform(0.3, 3.0)
        moment = now - int(seconds * TICKS_PER_SECOND)
        shown = [
            action
            for action in (*actions.within(window.ticks), *actions.removed_since(moment))
            if action.stored_at <= moment and action.timetoken in window.ticks
        ]
        shown.sort(key=attrgetter("timetoken"))
        return shown[-window.limit :]

    def _part_of(self, listed: list[Action]) -> list[Action]:
        random = self._faults.random
        missing = random.randrange(len(listed))
        others = listed[:missing] + listed[missing + 1 :]
        return [action for action in others if random.random() < 0.7]

    def _cut_short(self, listed: list[Action]) -> Page:
        count = self._faults.random.randint(2, len(listed) - 1)
        kept = listed[-count:]
        return Page(tuple(kept), more=kept[0].timetoken)
