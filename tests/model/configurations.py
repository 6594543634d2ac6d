"""What is checked: configurations that hold, protections that are needed, limits that are known."""

from collections.abc import Mapping
from typing import Final

from tests.model.checker import Configuration

GAP: Final = Configuration("tallies", "OVERFLOWS=1 SUBSCRIPTIONS=1")
GAP_AND_KILL: Final = Configuration("tallies", "OVERFLOWS=1 KILLS=1 SUBSCRIPTIONS=1")
TWO_GAPS: Final = Configuration("tallies", "OVERFLOWS=2 SUBSCRIPTIONS=1")
LYING_LIST: Final = Configuration("tallies", "OVERFLOWS=1 OMISSIONS=1 SUBSCRIPTIONS=1 LAST_ROUND")
HELD_ANSWER: Final = Configuration("tallies", "WAITS=1 HOURS=1 LOOKS=0")
SLOW_PAGE: Final = Configuration("tallies", "SLOW_PAGES=1 OVERFLOWS=2 SUBSCRIPTIONS=1 LOOKS=2")
TWINS: Final = Configuration("tallies", "TWINS ACTS=4 ROUNDS=1 LAST_ROUND SUBSCRIPTIONS=1 PROMPT")
FIRST_START: Final = Configuration("tallies", "FIRST_START KILLS=1 SUBSCRIPTIONS=1")
HIDDEN_LOSS: Final = Configuration(
    "tallies", "LATE OVERFLOWS=1 LOSSES=1 SUBSCRIPTIONS=1 LAST_ROUND"
)
TWO_WORKERS: Final = Configuration("tallies", "OVERFLOWS=1")
ONE_SERVER: Final = Configuration("rollback", "OVERFLOWS=1 KILLS=1 EVENTS=1")
ONE_SERVER_EVENTS: Final = Configuration("rollback", "KILLS=1")
TWO_SHARDS: Final = Configuration("rollback", "SHARDS=2 KILLS=1 EVENTS=1")
TWO_SHARDS_GAP: Final = Configuration("rollback", "SHARDS=2 OVERFLOWS=1 EVENTS=1")

SMALL: Final = (
    *(GAP, GAP_AND_KILL, TWO_GAPS, LYING_LIST, HELD_ANSWER, TWINS, FIRST_START, HIDDEN_LOSS),
    *(TWO_WORKERS, ONE_SERVER, ONE_SERVER_EVENTS, TWO_SHARDS),
)
"""They hold, and take a second or two each."""

LARGE: Final = (
    *(SLOW_PAGE, TWO_SHARDS_GAP),
    Configuration("tallies", "OVERFLOWS=1 KILLS=1"),
    Configuration("tallies", "OVERFLOWS=1 WAITS=1"),
    Configuration("tallies", "OVERFLOWS=1 LOOKS=2"),
    Configuration("tallies", "OVERFLOWS=1 KILLS=1 SUBSCRIPTIONS=1 SETTLE=2"),
    Configuration("tallies", "LATE OVERFLOWS=1 LOSSES=1 REPEATS=1 LAST_ROUND"),
    Configuration("rollback", "OVERFLOWS=1"),
)
"""They hold, and take up to some minutes."""

PROTECTIONS: Final[Mapping[str, Configuration]] = {
    "APPLY_BEFORE_CURSOR": Configuration("tallies", "KILLS=1 SUBSCRIPTIONS=1"),
    "ATOMIC_SCRIPT": Configuration("tallies", ""),
    "CAS_PRUNE": GAP,
    "LATE_MARK": SLOW_PAGE,
    "MARKS": GAP,
    "MARK_AFTER_RESTORE": TWINS,
    "MARK_AGE": GAP,
    "MARK_BEFORE_CURSOR": GAP_AND_KILL,
    "PAUSE": LYING_LIST,
    "RESTORE": TWINS,
    "SECOND_PASS": LYING_LIST,
    "STALE_DROP": HELD_ANSWER,
    "TOMBSTONE": Configuration("tallies", "SUBSCRIPTIONS=1"),
    "UNCHANGED_MARK": TWO_GAPS,
    "CURSOR_NUMBER": ONE_SERVER,
    "MARK_AGAIN": ONE_SERVER,
    "ROLLBACK_SIGN": ONE_SERVER,
    "DOUBT_OF_SHARD": TWO_SHARDS,
    "DURABLE_SIGN": TWO_SHARDS,
    "SHARD_SIGN": TWO_SHARDS,
}
"""Each protection, and a configuration that goes wrong without it."""

LIMITS: Final[Mapping[str, Configuration]] = {
    "a late addition after a gap with its removal": Configuration(
        "tallies", "LATE OVERFLOWS=1 SUBSCRIPTIONS=1"
    ),
    "a list that leaves out one action twice": Configuration(
        "tallies", "OVERFLOWS=1 OMISSIONS=2 SUBSCRIPTIONS=1"
    ),
    "a list that leaves out what a gap added": Configuration(
        "tallies", "OVERFLOWS=1 OMISSIONS=1 SUBSCRIPTIONS=1"
    ),
}
"""What only a later round mends: README.md has the reasons."""
