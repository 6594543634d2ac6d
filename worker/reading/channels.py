"""The channels: when each changed last, what it is owed and why, and when it was last proven."""

import fnmatch
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from heapq import nlargest
from typing import Any, Final, cast

from worker.errors import MissingPermissionError
from worker.store.batch import batched
from worker.store.heartbeat import no_worker, read_heartbeat_age
from worker.store.pending_repairs import Marks, PendingRepairs, is_coming
from worker.store.proofs import CHANNELS_AT_ONCE, Proof, Proofs
from worker.store.reader import Tallies, opened_tallies, reading_errors
from worker.store.redis_errors import redis_errors

NO_MARKS: Final[Marks] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedChannel:
    """What Redis knows of a channel."""

    channel: str
    proof: Proof
    owed: Marks
    is_late: bool
    """Whether it is owed something that no worker repairs by itself, or not in time."""
    messages: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelList:
    """Some channels: those that are owed a repair first, then those that changed last."""

    channels: tuple[ListedChannel, ...]
    known: int
    """How many channels there are."""
    matching: int
    """How many of them match the pattern."""
    owed: int
    """How many of these are owed a repair."""
    heartbeat_age: float | None
    """How many seconds ago a worker gave a sign of life; None if none did, or nobody may say."""
    no_worker: str
    """That no worker runs, or that nobody may say whether one does; empty if one runs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """Which channels are listed."""

    pattern: str = "*"
    """As a shell has it: ``*``, ``?`` and ``[…]``."""
    is_owed: bool = False
    """Only those that are owed a repair."""
    limit: int = 50

    def matching(self, channels: Iterable[str]) -> list[str]:
        """Return the channels that match the pattern, sorted."""
        matching = set(fnmatch.filter(channels, self.pattern))
        named = {self.pattern}.intersection(channels)
        return sorted(matching | named)


async def read_channels(
    redis_url: str | None,
    namespace: str,
    choice: Choice,
    now: float,
) -> ChannelList:
    """Return the channels of a namespace.

    All of them are read, a thousand in a round trip. ``now`` is in seconds since 1970.

    Raises:
        RedisUnavailableError: Redis does not answer.
        RedisUnfitError: there are no tallies, or they have another schema.
    """
    async with opened_tallies(redis_url, namespace) as tallies:
        with reading_errors():
            known = await tallies.reader.channels()
        matching = choice.matching(known)
        owed = await PendingRepairs(tallies.redis, tallies.keys).read_all(matching)
        candidates = sorted(owed) if choice.is_owed else matching
        proofs = Proofs(tallies.redis, tallies.keys).scan(candidates)
        rows = [(channel, proof) async for channel, proof in proofs]
        chosen = nlargest(choice.limit, rows, key=partial(_urgency, owed))
        messages = await _count_messages(tallies, list(dict(chosen)))
        heartbeat_age, sentence = await _read_heartbeat(tallies)
    listed = map(partial(_row, owed, int(1000 * now)), chosen, messages)
    return ChannelList(
        channels=tuple(listed),
        known=len(known),
        matching=len(matching),
        owed=len(owed),
        heartbeat_age=heartbeat_age,
        no_worker=sentence,
    )


async def _read_heartbeat(tallies: Tallies) -> tuple[float | None, str]:
    redis, keys = tallies.redis, tallies.keys
    try:
        age = await read_heartbeat_age(redis, keys)
    except MissingPermissionError as error:
        # The users of 0.2 lack a right, and had this list.
        return None, f"Does a worker run? {error}"
    return age, no_worker(age)


def _row(
    owed: Mapping[str, Marks],
    now: int,
    chosen: tuple[str, Proof],
    messages: int,
) -> ListedChannel:
    channel, proof = chosen
    marks = owed.get(channel, NO_MARKS)
    return ListedChannel(
        channel=channel,
        proof=proof,
        owed=marks,
        is_late=bool(marks) and not is_coming(marks, now),
        messages=messages,
    )


def _urgency(owed: Mapping[str, Marks], row: tuple[str, Proof]) -> tuple[bool, int]:
    channel, proof = row
    return channel in owed, proof.changed


async def _count_messages(tallies: Tallies, channels: list[str]) -> list[int]:
    """Return how many messages each channel has; 0 where another program wrote the key."""
    counts: list[int] = []
    redis = cast("Any", tallies.redis)
    for batch in batched(channels, CHANNELS_AT_ONCE):
        pipe = redis.pipeline(transaction=False)
        for key in map(tallies.keys.messages, batch):
            pipe.zcard(key)
        with redis_errors():
            answers = await pipe.execute(raise_on_error=False)
        counts += map(_number, answers)
    return counts


def _number(answer: object) -> int:
    return answer if isinstance(answer, int) else 0
