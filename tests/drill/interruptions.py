"""How long nothing was counted: read from the journals, whose ids are the servers' own times."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise
from typing import Final, cast
from urllib.parse import unquote

from redis import Redis

from reaction_tally.journal import JournalEntry, read_entry
from tests.server_nodes import Node
from worker.domain.action import Origin

Journals = Mapping[str, Sequence[JournalEntry]]
"""Channel → entries, oldest first."""

ADDED: Final = "added"
TICKS_PER_SECOND: Final = 10_000_000


def read_journals(node: Node, since: float = 0) -> dict[str, list[JournalEntry]]:
    """Return the entries that a node has, from this time on, of each channel that it serves."""
    with Redis.from_url(node.url, decode_responses=True) as redis:
        keys = list(redis.scan_iter("tally:{*}:journal", count=1000))
        pipe = redis.pipeline(transaction=False)
        for key in keys:
            pipe.xrange(key, min=int(since * 1000))
        answers = pipe.execute(raise_on_error=False)
    journals = {}
    for key, entries in zip(keys, answers, strict=True):
        if isinstance(entries, list):  # an error if the slot has just moved
            journals[_channel(key)] = [read_entry(*entry) for entry in entries]
    return journals


def read_all_journals(nodes: Iterable[Node], since: float) -> dict[str, list[JournalEntry]]:
    """Return the entries of all nodes."""
    journals: dict[str, list[JournalEntry]] = {}
    for node in nodes:
        journals |= read_journals(node, since)
    return journals


def read_heads(node: Node) -> dict[str, float]:
    """Return when the last entry of each channel of a node was written."""
    with Redis.from_url(node.url, decode_responses=True) as redis:
        keys = list(redis.scan_iter("tally:{*}:head", count=1000))
        pipe = redis.pipeline(transaction=False)
        for key in keys:
            pipe.get(key)
        heads = pipe.execute(raise_on_error=False)
    return {
        _channel(key): int(head.partition("-")[0]) / 1000
        for key, head in zip(keys, heads, strict=True)
        if isinstance(head, str)
    }


def missing(journals: Journals, there: Journals) -> dict[str, list[JournalEntry]]:
    """Return the entries that are not there any more."""
    gone = {}
    for channel, entries in journals.items():
        kept = {entry.id for entry in there.get(channel, ())}
        if lost := [entry for entry in entries if entry.id not in kept]:
            gone[channel] = lost
    return gone


@dataclass(frozen=True, slots=True, kw_only=True)
class Interruption:
    """Seconds without a counted event, in the channels that were hit and in the others."""

    hit: float
    others: float
    oldest: float
    """The most that an event was older than its count."""

    def __str__(self) -> str:
        return f"{self.hit:5.1f} s  {self.others:5.1f} s  {self.oldest:5.1f} s"


def interruption(parts: Sequence[Journals], hit: Collection[str]) -> Interruption:
    """Return the longest pauses between two counts of live events."""
    live = {
        (channel, entry.id): entry
        for journals in parts
        for channel, entries in journals.items()
        for entry in entries
        if entry.origin == Origin.LIVE
    }
    ours = [entry for (channel, _), entry in live.items() if channel in hit]
    others = [entry for (channel, _), entry in live.items() if channel not in hit]
    return Interruption(
        hit=_pause(ours),
        others=_pause(others),
        oldest=max(chain.from_iterable(map(_ages, live.values())), default=0.0),
    )


def _pause(entries: Iterable[JournalEntry]) -> float:
    times = sorted(entry.milliseconds for entry in entries)
    return max((later - earlier for earlier, later in pairwise(times)), default=0) / 1000


def _ages(entry: JournalEntry) -> Iterator[float]:
    """Yield how old each addition was. A removal does not say when it happened."""
    for change in entry.changes:
        if change.event == ADDED:
            yield entry.milliseconds / 1000 - int(change.action_timetoken) / TICKS_PER_SECOND


def read_cursors(nodes: Iterable[Node]) -> Iterator[tuple[Node, str, dict[str, str]]]:
    """Yield each cursor: the node that has it, its subscription, its fields."""
    for node in nodes:
        with Redis.from_url(node.url, decode_responses=True) as redis:
            for key in redis.scan_iter("tally:cursor:*", count=1000):
                fields = cast("dict[str, str]", redis.hgetall(key))
                yield node, key.rpartition(":")[2], fields


def read_subscriptions(nodes: Iterable[Node]) -> dict[str, list[str]]:
    """Return the channels of each subscription."""
    for node in nodes:
        with Redis.from_url(node.url, decode_responses=True) as redis:
            if "tally:subscriptions" in redis.scan_iter("tally:subscriptions", count=10_000):
                found = cast("dict[str, str]", redis.hgetall("tally:subscriptions"))
                return {name: names.split("\n") for name, names in found.items()}
    return {}


def _channel(key: str) -> str:
    return unquote(key.partition("{")[2].rpartition("}")[0])
