"""The sentence on top of the board: may the counts be trusted?"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any


class State(StrEnum):
    """How the tallies are, at a glance."""

    GOOD = "good"
    """Everything is proven, or was."""
    REPAIRING = "repairing"
    """Something may have been missed, and is being repaired."""
    ATTENTION = "attention"
    """A person should look."""
    UNKNOWN = "unknown"
    """Redis or a worker does not answer, or nothing was read yet."""


Status = Mapping[str, Any]
"""What ``/status`` of a worker has; without a worker, only ``redis`` and ``no_worker``."""


def summary(status: Status, rate: float | None, *, has_worker: bool) -> dict[str, Any]:
    """Return the facts of the sentence, and the state with its reason.

    ``rate`` is in events a second; None if no worker says it.
    """
    backlog = status.get("redis")
    facts = {"rate": rate, "has_worker": has_worker}
    if not isinstance(backlog, Mapping):
        return facts | {"state": State.UNKNOWN, "reason": "Redis does not answer."}
    state, reason = _state(status, backlog, has_worker=has_worker)
    return facts | {
        "state": state,
        "reason": reason,
        "channels": backlog["channels"],
        "owed": backlog["owed_channels"],
        "never_proven": backlog["never_proven"],
        "proven_seconds": backlog["unproven_seconds"]["whole"]["max"],
        "recent_seconds": backlog["unproven_seconds"]["recent"]["max"],
    }


def seconds_ago(status: Status) -> float:
    """Return how long ago Redis was read: a worker keeps what it read last."""
    backlog = status.get("redis")
    return backlog["read_seconds_ago"] if isinstance(backlog, Mapping) else 0.0


def _state(status: Status, backlog: Status, *, has_worker: bool) -> tuple[State, str]:
    problems = _problems(status)
    if problems:
        return State.ATTENTION, "; ".join(problems)
    if not has_worker:
        return _without_pages(status.get("no_worker"))
    if backlog["owed_channels"]:
        return State.REPAIRING, "Some channels are new, or may have missed events."
    if backlog["never_proven"]:
        return State.REPAIRING, "Some channels were not yet compared with PubNub's list."
    return State.GOOD, ""


def _without_pages(no_worker: str | None) -> tuple[State, str]:
    """Return what is known if no worker answers at TALLY_HTTP.

    ``no_worker`` says that none runs; it is empty if one does, None if nobody may say.
    """
    if no_worker:
        return State.ATTENTION, no_worker
    lives = "whether one counts" if no_worker is None else "what the one that runs does"
    return State.UNKNOWN, f"No worker answers at TALLY_HTTP: nobody knows {lives}."


def _problems(status: Status) -> list[str]:
    """Return each check that fails, with its reason."""
    readiness = status.get("ready", {})
    checks = readiness.get("checks", {}).items()
    return [f"{name}: {check['reason']}" for name, check in checks if not check["ok"]]
