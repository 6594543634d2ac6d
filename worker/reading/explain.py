"""How the counts of one message came to be, as far as the journal remembers."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from reaction_tally.journal import EXPIRED, REBUILT, START, JournalChange, JournalEntry
from worker.domain.tally import by_count
from worker.source import names
from worker.store.journal import Journal
from worker.store.reader import opened_tallies
from worker.store.snapshot import Snapshot, read_snapshot
from worker.telemetry.text import escape


@dataclass(frozen=True, slots=True)
class ExplainedChange:
    """A change of the message, and the entry of the journal that holds it."""

    entry: JournalEntry
    change: JournalChange


@dataclass(frozen=True, slots=True)
class Explanation:
    """The changes of one message, oldest first, and the state they led to."""

    changes: tuple[ExplainedChange, ...]
    is_whole: bool
    """Whether no change is missing.

    Each entry names the one before it, back to the first,
    and the last count of each tally is the present one.
    """
    ends_well: bool
    """Whether the last counts in the journal are the present ones."""
    reaches_back_to: int | None
    """When the oldest entry left was written, in milliseconds of Redis's clock.

    None if no entry is left.
    """
    present: Snapshot
    is_known: bool = True
    """Whether a worker has ever seen the channel."""


async def explain_message(
    redis_url: str | None,
    namespace: str,
    channel: str,
    message_timetoken: str,
) -> Explanation:
    """Return what the journal says of one message.

    Raises:
        ConfigurationError: PubNub would refuse the channel's name.
        RedisUnavailableError: Redis does not answer.
        RedisUnfitError: there are no tallies, or they have another schema.
        DamagedKeyError: another program wrote a key that is read.
    """
    name = names.channel(channel)
    async with opened_tallies(redis_url, namespace) as tallies:
        redis, keys = tallies.redis, tallies.keys
        # A change after the snapshot is in neither:
        # the journal is read up to the snapshot.
        async with tallies.reading(name, [message_timetoken]):
            snapshot = await read_snapshot(redis, keys, name, message_timetoken)
            journal = Journal(redis, keys)
            explanation = await trace(journal, name, message_timetoken, snapshot)
        is_known = snapshot.head != START or await tallies.is_known(name)
    return replace(explanation, is_known=is_known)


async def trace(
    journal: Journal,
    channel: str,
    message_timetoken: str,
    present: Snapshot,
) -> Explanation:
    """Return the message's changes up to the snapshot."""
    changes: list[ExplainedChange] = []
    position = START
    is_chained = True
    reaches_back_to = None

    async for entry in journal.entries(channel, through=present.head):
        is_chained = is_chained and entry.after == position
        position = entry.id
        if reaches_back_to is None:
            reaches_back_to = entry.milliseconds
        changes += _changes_of(entry, message_timetoken)

    is_chained = is_chained and position == present.head
    ends_well = _last_counts(changes) == _present_counts(present)
    return Explanation(
        changes=tuple(changes),
        is_whole=is_chained and ends_well,
        ends_well=ends_well,
        reaches_back_to=reaches_back_to,
        present=present,
    )


def _changes_of(entry: JournalEntry, message_timetoken: str) -> Iterator[ExplainedChange]:
    for change in entry.changes:
        if change.message_timetoken == message_timetoken:
            yield ExplainedChange(entry, change)


def _last_counts(changes: Iterable[ExplainedChange]) -> Counter[tuple[str, str]]:
    """Return (type, value) → count, as the journal says; without zeros."""
    counts: Counter[tuple[str, str]] = Counter()
    for explained in changes:
        change = explained.change
        counts[change.type, change.value] = change.count
        if change.event == EXPIRED:
            counts.clear()
    return +counts


def _present_counts(present: Snapshot) -> dict[tuple[str, str], int]:
    return {(type, value): count for type, value, count in by_count(present.counts)}


def explanation_json(explanation: Explanation) -> dict[str, object]:
    """Return an explanation for programs; times are Redis's, in UTC."""
    since = explanation.reaches_back_to
    return {
        "known": explanation.is_known,
        "whole": explanation.is_whole,
        "reaches_back_to": None if since is None else _time(since),
        "changes": list(map(_change_json, explanation.changes)),
        "counts": explanation.present.counts,
        "users": explanation.present.users,
    }


def _change_json(explained: ExplainedChange) -> dict[str, object]:
    entry = explained.entry
    change = explained.change
    return {
        "id": entry.id,
        "time": _time(entry.milliseconds),
        "origin": entry.origin,
        "event": change.event,
        "outcome": change.outcome,
        "type": change.type,
        "value": change.value,
        "uuid": change.uuid,
        "action_timetoken": change.action_timetoken,
        "count": change.count,
    }


def explanation_lines(explanation: Explanation) -> Iterator[str]:
    """Yield an explanation for people.

    A line for each change, then the present counts, then how far back the journal reaches.
    """
    yield from map(_change_line, explanation.changes)
    yield from _present_lines(explanation.present)
    yield _reach_line(explanation)


def _change_line(explained: ExplainedChange) -> str:
    entry = explained.entry
    change = explained.change
    columns = [_time(entry.milliseconds), entry.origin, f"{change.event} {change.outcome}"]
    if change.event == REBUILT:
        columns += map(escape, (change.type, change.value))
    elif change.event != EXPIRED:
        columns += map(escape, (change.type, change.value, change.uuid))
    return f"{'  '.join(columns)}  → {change.count}"


def _present_lines(present: Snapshot) -> Iterator[str]:
    if not present.counts:
        yield "Now: no reactions."
    for type, value, count in by_count(present.counts):
        users = present.users.get(type, {}).get(value, {})
        names = ", ".join(map(escape, sorted(users)))
        yield f"Now: {escape(type)}  {escape(value)}  {count}: {names}"


def _reach_line(explanation: Explanation) -> str:
    if explanation.is_whole:
        return "The journal holds every change since the channel was first counted."
    if explanation.reaches_back_to is None:
        return (
            "The journal of this channel is empty: its entries were trimmed, "
            "named a forgotten user, or were never written."
        )
    since = _time(explanation.reaches_back_to)
    if not explanation.ends_well:
        return (
            f"The journal reaches back to {since}. Its last counts are not the present ones: "
            "it lacks changes, maybe of a forgotten user, "
            "or something else than the worker changed a key. "
            "tally verify says whether the counts are right."
        )
    return (
        f"The journal reaches back to {since}. Older entries are gone, or others are missing: "
        "there may have been more changes."
    )


def _time(milliseconds: int) -> str:
    moment = datetime.fromtimestamp(milliseconds / 1000, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
