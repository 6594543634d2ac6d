"""One page of get-actions: the newest below `start`, ascending, and what may be wrong with it."""

from dataclasses import dataclass
from operator import attrgetter
from typing import Final

from worker.emulator.actions import Action, ChannelActions
from worker.emulator.faults import Fault, Faults
from worker.emulator.timetokens import TICKS_PER_SECOND

MAX_ITEMS: Final = 100


@dataclass(frozen=True, slots=True)
class Window:
    """What a page was asked for: below `start` (exclusive), not below `end` (inclusive), at most `limit` items."""

    start: int | None = None
    end: int | None = None
    limit: int = MAX_ITEMS

    def covers(self, timetoken: int) -> bool:
        """Tell whether a timetoken lies between the bounds."""
        return (self.start is None or timetoken < self.start) and (
            self.end is None or timetoken >= self.end
        )


@dataclass(frozen=True, slots=True)
class Page:
    """A page's actions, ascending by timetoken. `more` is where the next one starts if the server stopped early."""

    actions: tuple[Action, ...]
    more: int | None = None


class History:
    """Cuts pages out of a channel's actions. The client's own limit leaves no sign; a full page proves nothing."""

    def __init__(self, faults: Faults) -> None:
        self._faults = faults

    def page(self, actions: ChannelActions, window: Window, now: int) -> Page:
        """Return one page as of `now` (ticks), or as the faults have it."""
        if self._faults.strikes(Fault.EMPTY):
            return Page(())
        listed = self._listed(actions, window, now)
        if listed and self._faults.strikes(Fault.PARTIAL):
            listed = self._some_of(listed)
        if len(listed) > 2 and self._faults.strikes(Fault.MORE):
            kept = listed[-self._faults.random.randint(2, len(listed) - 1) :]
            return Page(tuple(kept), more=kept[0].timetoken)
        return Page(tuple(listed))

    def _listed(self, actions: ChannelActions, window: Window, now: int) -> list[Action]:
        if not self._faults.strikes(Fault.STALE):
            return actions.between(window.end, window.start, window.limit)
        moment = now - int(self._faults.random.uniform(0.3, 3.0) * TICKS_PER_SECOND)
        removed = (
            action for action in actions.removed_since(moment) if window.covers(action.timetoken)
        )
        known = (*actions.between(window.end, window.start), *removed)
        shown = sorted(
            (action for action in known if action.stored_at <= moment), key=attrgetter("timetoken")
        )
        return shown[-window.limit :]

    def _some_of(self, listed: list[Action]) -> list[Action]:
        missing = self._faults.random.randrange(len(listed))
        return [
            action
            for index, action in enumerate(listed)
            if index != missing and self._faults.random.random() < 0.7
        ]
