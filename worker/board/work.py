"""What a worker does, for the board: subscriptions, repairs, quarantine."""

from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from itertools import islice
from typing import Any, Final, TypeVar

from worker.board.summary import Status
from worker.store.tables import DeadLetter

LISTED: Final = 8
"""So many subscriptions and repairs are shown, those first that need a look."""
TREND_SECONDS: Final = 120.0
"""An estimate goes by the last two minutes."""
LEAST_SECONDS: Final = 15.0
"""An estimate needs so much of them."""

Item = TypeVar("Item")
Shown = TypeVar("Shown")
Newest = tuple[int, DeadLetter | None]
"""How many dead letters there are, and the newest one."""


class Pace:
    """How fast something falls, and when it is at its end."""

    def __init__(self) -> None:
        self._points: deque[tuple[float, float]] = deque()
        self._first: float | None = None

    def part(self, left: float) -> float | None:
        """Return which part is done of what was left at first, from 0 to 1."""
        if not self._first:
            return None
        return round(max(0.0, 1 - left / self._first), 3)

    def note(self, now: float, left: float) -> float | None:
        """Note how much is left; return the seconds until nothing is, if it falls."""
        self._points.append((now, left))
        if self._first is None:
            self._first = left
        while now - self._points[0][0] > TREND_SECONDS:
            self._points.popleft()
        then, before = self._points[0]
        done = before - left
        if done <= 0 or now - then < LEAST_SECONDS:
            return None
        return left * (now - then) / done


class Work:
    """Remembers how repairs come on, and so estimates their ends."""

    def __init__(self) -> None:
        self._owed = Pace()
        self._backfills: dict[str, Pace] = {}

    def view(self, status: Status, quarantine: Newest | None, now: float) -> dict[str, Any]:
        """Return what the page shows of a worker's status; of a quarantine if it can be read."""
        backlog = status.get("redis")
        subscriptions = status.get("subscriptions")
        return {
            "version": status.get("version"),
            "up_seconds": status.get("up_seconds"),
            "subscriptions": _if_known(_subscriptions, subscriptions),
            "repairs": self._repairs(backlog, now) if isinstance(backlog, Mapping) else None,
            "quarantine": _if_known(_quarantine, quarantine),
        }

    def _repairs(self, backlog: Status, now: float) -> dict[str, Any]:
        owed = backlog["owed_channels"]
        backfills = backlog["backfills"]
        self._backfills = {name: self._backfills.get(name) or Pace() for name in backfills}
        items = [self._backfill(name, backfills[name], now) for name in islice(backfills, LISTED)]
        marks = backlog["owed"].items()
        waiting = [
            {"channel": channel, "causes": causes}
            for channel, causes in marks
            if channel not in backfills
        ]
        return {
            "owed": owed,
            "seconds_left": _if_known(round, self._owed.note(now, owed)),
            "backfills": len(backfills),
            "items": items + waiting[: LISTED - len(items)],
            "last_round": backlog["last_round"],
        }

    def _backfill(self, channel: str, progress: Status, now: float) -> dict[str, Any]:
        reached = _if_known(_seconds, progress["has_come_back_to"])
        end = _if_known(_seconds, progress["goes_back_to"])
        left = part = None
        if reached is not None and end is not None:
            pace = self._backfills[channel]
            left = pace.note(now, reached - end)
            part = pace.part(reached - end)
        return {
            "channel": channel,
            "actions": progress["actions"],
            "has_come_back_to": progress["has_come_back_to"],
            "seconds_left": _if_known(round, left),
            "part": part,
        }


def _subscriptions(items: Sequence[Status]) -> dict[str, Any]:
    states = Counter(item["state"] for item in items)
    late = sorted(items, key=_silence, reverse=True)
    return {
        "count": len(items),
        "states": dict(states),
        "queued": sum(item["queued_answers"] for item in items),
        "items": [_subscription(item) for item in late[:LISTED]],
    }


def _silence(subscription: Status) -> float:
    seconds = subscription["answered_seconds_ago"]
    return float("inf") if seconds is None else float(seconds)


def _subscription(item: Status) -> dict[str, Any]:
    names = item["names"]
    return {
        "state": item["state"],
        "names": len(names),
        "first": names[0] if names else "",
        "answered_seconds_ago": item["answered_seconds_ago"],
        "cursor_age_seconds": item["cursor_age_seconds"],
        "queued": item["queued_answers"],
    }


def _quarantine(newest: Newest) -> dict[str, Any]:
    count, letter = newest
    if letter is None:
        return {"count": count}
    return {
        "count": count,
        "channel": letter.channel,
        "reason": letter.reason,
        "at": letter.milliseconds,
    }


def _seconds(moment: str) -> float:
    return datetime.fromisoformat(moment).timestamp()


def _if_known(make: Callable[[Item], Shown], value: Item | None) -> Shown | None:
    """Return what is made of a value; None if there is none."""
    if value is None:
        return None
    return make(value)
