"""The faults a seed may draw: PubNub's, from the emulator, and those of the world around it."""

from collections.abc import Mapping
from random import Random
from typing import Final

from worker.emulator import FAULT_NAMES

RARE: Final = frozenset(
    {
        *("forbidden", "throttle", "server_error", "bad_json", "drop", "latency"),
        "empty_channel",
    }
)
WORLDLY: Final = (
    *("history", "overflow", "silent"),
    *("kill", "stop", "suspend", "crash_loop", "configuration", "reload", "hangup"),
    *("redis", "flush", "restart", "clock", "acl", "journal_acl"),
    *("evicted", "recounted", "wrong_type"),
    *("pubnub", "unlisted", "origin", "pubnub_clock"),
)
"""What else may go wrong, beside the emulator's faults."""
PENDING: Final[Mapping[str, str]] = {}
"""Faults that still end wrong: with which seed, and why. ``ALL`` leaves them out."""
KNOWN: Final = frozenset((*FAULT_NAMES, *WORLDLY))
ALL: Final = KNOWN - PENDING.keys()
HIDDEN: Final = frozenset(
    {
        *("lost", "unpublished", "silent", "partial", "empty", "empty_channel"),
        *("twin", "readd", "tie", "configuration"),
        *("unlisted", "origin", "evicted", "recounted", "wrong_type"),
    }
)
"""Faults without a sign: only a later pass over the list can find what they did.

A tie is one of them if a user adds again what was removed a moment ago, with the same timetoken.
"""
VISIBLE: Final = ALL - HIDDEN
"""Faults that show when they strike: the worker repairs what they did."""
GROUPS: Final = {"all": ALL, "visible": VISIBLE, "pending": frozenset(PENDING), "none": frozenset()}


def chosen(text: str) -> frozenset[str]:
    """Return the faults that a comma-separated text names; a group of faults has a name, too.

    Raises:
        ValueError: a name is unknown; the message says which, and lists those that are known.
    """
    faults: set[str] = set()
    for name in text.split(","):
        faults |= GROUPS.get(name, {name})
    if unknown := sorted(faults - KNOWN):
        raise ValueError(
            f"unknown faults {', '.join(unknown)}; the known ones are {', '.join(sorted(KNOWN))}"
        )
    return frozenset(faults)


def rates(random: Random, names: frozenset[str]) -> dict[str, float]:
    """Return a rate for each of the emulator's faults: some of them strike often."""
    drawn = {}
    for name in FAULT_NAMES:
        little, much = (0.002, 0.03) if name in RARE else (0.02, 0.35)
        rate = (
            random.uniform(little, much)
            if random.random() < 0.2
            else little * random.uniform(0.5, 2)
        )
        if name in names:
            drawn[name] = rate
    return drawn
