"""Follows the changes of channels: what a reader does, step by step. Nothing here does I/O.

A follower yields what is to be done, and receives what came of it.
Both readers carry out the same steps.
"""

import math
import time
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Final

from reaction_tally.errors import NotTheseTalliesError, RedisUnavailableError, TallyReadError
from reaction_tally.following import Following, Item, Reading, is_any
from reaction_tally.journal import START
from reaction_tally.operations import Group, GroupedOperation, Operation, Operations, Request
from reaction_tally.replies import check_reply, text
from reaction_tally.values import Reset

COMPARE_SECONDS: Final = 5.0
"""How often all heads are read, because a hint may be lost."""
COMPARE_SHARE: Final = 10
"""Reading the heads of very many channels takes no more than a tenth of the time."""
HEADS: Final = 1_000
"""Heads that one round trip reads."""
AWAY_SECONDS: Final = 60.0
"""How long Redis may be away."""
FIRST_PAUSE: Final = 0.1
LONGEST_PAUSE: Final = 5.0
"""The pauses between tries to reach Redis. Each is twice as long as the one before."""


@dataclass(frozen=True, slots=True)
class Subscribe:
    """Subscribe to the hints: on a new connection, or once more on the one that is there."""

    is_new: bool


@dataclass(frozen=True, slots=True)
class Listen:
    """Receive the messages that are there. Wait so long for the first one."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Pause:
    """Wait."""

    seconds: float


Step = Request | Group | Subscribe | Listen | Pause | Item
Steps = Generator[Step, Any, None]


def begin(
    operations: Operations,
    channels: Sequence[str] | None,
    since: Mapping[str, str] | None,
    away_seconds: float = AWAY_SECONDS,
    is_wanted: Callable[[str], bool] = is_any,
) -> GroupedOperation[Steps]:
    """Return the steps of a follower.

    Without ``channels`` it follows every channel of the namespace. ``is_wanted`` may change its
    mind: a channel is read from the moment on that it wants it.
    """
    yield from operations.check()
    if channels is None:
        positions = yield from _positions_of_all(operations, since)
    else:
        positions = yield from _positions(operations, channels, since or {})
    is_open = channels is None
    following = Following(operations.keys, positions, is_open=is_open, is_wanted=is_wanted)
    return Follower(operations, following, away_seconds).steps()


def _positions(
    operations: Operations,
    channels: Sequence[str],
    since: Mapping[str, str],
) -> GroupedOperation[dict[str, str]]:
    """Return where channels begin: since a position, or now."""
    now = yield from read_heads(operations, channels)
    return now | {channel: since[channel] for channel in channels if channel in since}


def _positions_of_all(
    operations: Operations,
    since: Mapping[str, str] | None,
) -> GroupedOperation[dict[str, str]]:
    """Return where all channels begin: now, or since some positions.

    Then one that has no position is new, and begins at its first entry.
    """
    channels = yield from operations.channels()
    if since is None:
        return (yield from _positions(operations, list(channels), {}))
    return dict.fromkeys(channels, START) | dict(since)


def read_heads(operations: Operations, channels: Iterable[str]) -> GroupedOperation[dict[str, str]]:
    """Return the head of each channel."""
    channel_of = {operations.keys.head(channel): channel for channel in channels}
    heads = dict.fromkeys(channel_of.values(), START)
    for groups in (yield Group([*channel_of], HEADS)):
        replies = yield Request([("MGET", *keys) for keys in groups])
        for keys, reply in zip(groups, replies, strict=True):
            for key, head in zip(keys, check_reply(reply), strict=True):
                heads[channel_of[key]] = text(head or START)
    return heads


def read_journals(
    operations: Operations,
    readings: Sequence[Reading],
    most: float = math.inf,
) -> Operation[None]:
    """Read until all readings are done, or for so many round trips."""
    left = readings
    trips = 0
    while left and trips < most:
        commands = chain.from_iterable(map(Reading.commands, left))
        schema, *replies = yield Request([operations.schema, *commands])
        operations.expect_schema(schema)
        for number, reading in enumerate(left):
            reading.take(replies[3 * number : 3 * number + 3])
        left = [reading for reading in left if not reading.is_done]
        trips += 1


class Follower:
    """Follows channels: hints say which of them changed, journals say how."""

    def __init__(
        self,
        operations: Operations,
        following: Following,
        away_seconds: float = AWAY_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._operations = operations
        self._following = following
        self._clock = clock
        self._absence = Absence(away_seconds, clock)
        self._compare_at = clock()
        self._has_hints = True
        self._is_heard = True
        """Whether a message came since the subscription was tried last."""
        self._tries = 0
        """How often it was tried, without an answer yet."""

    def steps(self) -> Steps:
        """Yield changes and resets, and what must be done to learn of them.

        A Redis that was emptied counts as away until a worker claims it.

        Raises:
            RedisUnavailableError: Redis stays away.
            NotTheseTalliesError: it stays empty, or has another schema.
            TallyReadError: Redis refuses something.
        """
        while True:
            try:
                yield from self._follow()
            except (RedisUnavailableError, NotTheseTalliesError) as error:
                yield self._absence.pause(error)

    def _follow(self) -> Steps:
        """Follow the channels on a new connection."""
        yield Subscribe(is_new=True)
        self._has_hints, self._is_heard, self._tries = True, True, 0
        # The answer to the subscription asks for the first comparison.
        self._compare_at = self._clock() + COMPARE_SECONDS
        while True:
            yield from self._listen()
            if self._clock() >= self._compare_at:
                yield from self._compare()
            yield from self._read()

    def _listen(self) -> Steps:
        """Take hints. Wait for them if there is nothing else to do."""
        rest = max(0.0, self._compare_at - self._clock())
        seconds = 0.0 if self._following.is_behind else rest
        if not self._has_hints:
            yield Pause(seconds)
            return
        try:
            messages = yield Listen(seconds)
        except RedisUnavailableError:
            raise
        except TallyReadError:
            # The user may not subscribe, or a proxy does not know how. The heads say it later.
            self._has_hints = False
            self._compare_at = self._clock()
            return
        for message in messages:
            self._note(message)

    def _note(self, message: Mapping[str, Any]) -> None:
        self._is_heard = True
        if message["type"] == "message":
            self._following.note_hint(text(message["data"]))
        elif self._tries:
            self._tries -= 1
        else:
            # A new connection: hints were lost before it.
            self._compare_at = self._clock()

    def _compare(self) -> Steps:
        """Find the channels that have changed without a hint."""
        began = self._clock()
        yield from self._compare_heads()
        self._absence.end()
        now = self._clock()
        self._compare_at = now + max(COMPARE_SECONDS, COMPARE_SHARE * (now - began))
        if self._has_hints:
            yield from self._try_subscription()

    def _compare_heads(self) -> Steps:
        operations = self._operations
        yield from operations.check()
        if self._following.is_open:
            found = yield from operations.channels()
            self._following.add(found)
        heads = yield from read_heads(operations, self._following.channels)
        self._following.note_heads(heads)

    def _try_subscription(self) -> Steps:
        """Subscribe once more: the answer shows that the connection is alive."""
        if not self._is_heard:
            raise RedisUnavailableError("Redis no longer answers on the connection of the hints.")
        self._is_heard = False
        self._tries += 1
        yield Subscribe(is_new=False)

    def _read(self) -> Steps:
        """Read the journals of channels that are behind; yield what has changed."""
        readings = self._following.readings()
        yield from read_journals(self._operations, readings)
        for reading in readings:
            for item in self._following.finish(reading):
                yield item
                if isinstance(item, Reset):
                    self._following.move(item)


class Absence:
    """How long Redis has been away, and when it is tried again."""

    def __init__(self, longest: float, clock: Callable[[], float]) -> None:
        self._longest = longest
        self._clock = clock
        self._since: float | None = None
        self._seconds = FIRST_PAUSE

    def end(self) -> None:
        """Note that Redis answers."""
        self._since = None
        self._seconds = FIRST_PAUSE

    def pause(self, error: TallyReadError) -> Pause:
        """Return the pause after a failure.

        Raises:
            TallyReadError: Redis has been away for too long.
        """
        now = self._clock()
        if self._since is None:
            self._since = now
        if now - self._since >= self._longest:
            raise error
        seconds = self._seconds
        self._seconds = min(LONGEST_PAUSE, 2 * seconds)
        return Pause(seconds)


def advance(steps: Steps, answer: Any) -> Step:
    """Return the next step, after the answer to the one before it. An error is an answer, too."""
    if isinstance(answer, TallyReadError):
        return steps.throw(answer)
    return steps.send(answer)
