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
ONE_KILL: Final = Configuration("shards", "LOOKS=0 KILLS=1")
TWO_LOSSES: Final = Configuration("shards", "LOOKS=0 BACKS=2 KILLS=1")
ADOPTED_GAP: Final = Configuration("shards", "LOOKS=0 OVERFLOWS=1 KILLS=1")
OTHER_WRITER: Final = Configuration("shards", "LOOKS=0 EVENTS=2 OTHERS=1")
OTHER_GAPS: Final = Configuration("shards", "OVERFLOWS=1 KILLS=1 ONE_LACKS")
NAMES: Final = Configuration("names", "DATA_BACKS=0 NAME_BACKS=2 KILLS=2")
PLANNED: Final = Configuration("shards", "LOOKS=0 BACKS=2 NOTHING_LOST")

SMALL: Final = (
    *(GAP, GAP_AND_KILL, TWO_GAPS, LYING_LIST, HELD_ANSWER, TWINS, FIRST_START, HIDDEN_LOSS),
    *(TWO_WORKERS, ONE_SERVER, ONE_SERVER_EVENTS, ONE_KILL, ADOPTED_GAP, PLANNED),
    *(NAMES, Configuration("names", "KILLS=0")),
)
"""They hold, and take a second or two each."""

LARGE: Final = (
    *(SLOW_PAGE, TWO_LOSSES, OTHER_WRITER, OTHER_GAPS),
    Configuration("tallies", "OVERFLOWS=1 KILLS=1"),
    Configuration("tallies", "OVERFLOWS=1 WAITS=1"),
    Configuration("tallies", "OVERFLOWS=1 LOOKS=2"),
    Configuration("tallies", "OVERFLOWS=1 KILLS=1 SUBSCRIPTIONS=1 SETTLE=2"),
    Configuration("tallies", "LATE OVERFLOWS=1 LOSSES=1 REPEATS=1 LAST_ROUND"),
    Configuration("rollback", "OVERFLOWS=1"),
    Configuration("shards", "KILLS=1"),
    Configuration("shards", "OVERFLOWS=1 KILLS=1"),
    Configuration("shards", "OVERFLOWS=1 CURSOR_BACKS=1"),
    Configuration("shards", "OVERFLOWS=1 LOOKS=0 BACKS=2 KILLS=1"),
    Configuration("shards", "SHARDS=1 OVERFLOWS=1 KILLS=1"),
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
    "SHARD_SIGN": ONE_KILL,
    "DURABLE_SIGN": ONE_KILL,
    "ACCEPTED_SIGN": ONE_KILL,
    "FIRST_SIGN": TWO_LOSSES,
    "SECOND_LOOK_AT_SIGN": ONE_KILL,
    "ADOPTED_HEADS": ONE_KILL,
    "ADOPTED_MARKS": ADOPTED_GAP,
    "MARK_AGAIN_OF_SHARD": ADOPTED_GAP,
    "DROPPED_ANSWERS": ONE_KILL,
    "SCAN": NAMES,
    "ADOPTED_NAMES": NAMES,
    "NAME_AGAIN": NAMES,
}
"""Each protection, and a configuration that goes wrong without it."""

SLOW_PROTECTIONS: Final[Mapping[str, Configuration]] = {
    "OLDER_HEADS": OTHER_WRITER,
    "SIGN_OF_LOOK": OTHER_GAPS,
    "HEAD_OF_LOOK": OTHER_GAPS,
}
"""Likewise; half a minute each."""

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
    "data and its name lost at once, and everybody who knew it": Configuration("names", ""),
}
"""What only a later round or event mends: README.md has the reasons."""
