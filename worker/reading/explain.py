"""How the counts of one message came to be, as far as the journal remembers."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from worker.source import names
from worker.store.journal import EXPIRED, START, Change, Journal, JournalEntry
from worker.store.keys import Keys
from worker.store.opened import opened_redis
from worker.store.preflight import check_ownership
from worker.store.snapshot import Snapshot, read_snapshot
from worker.telemetry.text import escape


@dataclass(frozen=True, slots=True)
class ExplainedChange:
    """A change of the message, and the journal's entry it stands in."""

    entry: JournalEntry
    change: Change


@dataclass(frozen=True, slots=True)
class Explanation:
    """The changes of one message, oldest first, and what they led to."""

    changes: tuple[ExplainedChange, ...]
    is_whole: bool
    """Whether every entry the channel ever had was there, each naming the one before: no change is missing."""
    reaches_back_to: int | None
    """When the oldest entry that is kept was written: milliseconds, Redis's clock; None where none is."""
    present: Snapshot


async def explain(
    redis_url: str | None, namespace: str, channel: str, message_timetoken: str
) -> Explanation:
    """Return what the journal tells of one message.

    Raises:
        ConfigurationError: PubNub would refuse the channel's name.
        RedisUnavailableError: Redis does not answer.
        RedisUnfitError: the namespace is somebody else's.
    """
    keys = Keys(namespace)
    async with opened_redis(redis_url) as redis:
        await check_ownership(redis, keys)
        journal, name = Journal(redis, keys), names.channel(channel)
        # The present first, then the journal up to it: what happens meanwhile is in neither.
        return await trace(
            journal,
            name,
            message_timetoken,
            await read_snapshot(redis, keys, name, message_timetoken),
        )


async def trace(
    journal: Journal, channel: str, message_timetoken: str, present: Snapshot
) -> Explanation:
    """Return the message's changes up to the present that was read."""
    changes: list[ExplainedChange] = []
    position, is_whole, reaches_back_to = START, True, None
    async for entry in journal.entries(channel, through=present.head):
        is_whole = is_whole and entry.after == position
        position = entry.id
        reaches_back_to = entry.milliseconds if reaches_back_to is None else reaches_back_to
        changes += (
            ExplainedChange(entry, change)
            for change in entry.changes
            if change.message_timetoken == message_timetoken
        )
    return Explanation(
        tuple(changes), is_whole and position == present.head, reaches_back_to, present
    )


def as_json(explanation: Explanation) -> dict[str, Any]:
    """Return it for programs; times are Redis's, in UTC."""
    reaches_back_to = explanation.reaches_back_to
    return {
        "whole": explanation.is_whole,
        "reaches_back_to": None if reaches_back_to is None else _time(reaches_back_to),
        "changes": [
            {
                "id": told.entry.id,
                "time": _time(told.entry.milliseconds),
                "origin": told.entry.origin,
                "event": told.change.event,
                "outcome": told.change.outcome,
                "type": told.change.type,
                "value": told.change.value,
                "uuid": told.change.uuid,
                "action_timetoken": told.change.action_timetoken,
                "count": told.change.count,
            }
            for told in explanation.changes
        ],
        "counts": explanation.present.counts,
        "users": explanation.present.users,
    }


def as_lines(explanation: Explanation) -> Iterator[str]:
    """Yield it for people: a line for each change, what is counted now, and how far back the journal reaches."""
    for told in explanation.changes:
        change = told.change
        when = f"{_time(told.entry.milliseconds)}  {told.entry.origin}  {change.event} {change.outcome}"
        what = (
            "" if change.event == EXPIRED else f"  {_words(change.type, change.value, change.uuid)}"
        )
        yield f"{when}{what}  → {change.count}"
    yield from _now(explanation.present) if explanation.present.counts else ["Now: no reactions."]
    yield _reach(explanation)


def _now(present: Snapshot) -> Iterator[str]:
    for type, values in sorted(present.counts.items()):
        for value, count in sorted(values.items(), key=lambda pair: (-pair[1], pair[0])):
            users = ", ".join(map(escape, sorted(present.users.get(type, {}).get(value, ()))))
            yield f"Now: {_words(type, value)}  {count}: {users}"


def _reach(explanation: Explanation) -> str:
    if explanation.is_whole:
        return "The journal holds every change since the channel was first counted."
    if explanation.reaches_back_to is None:
        return "The journal of this channel is empty: what was in it was trimmed."
    since = _time(explanation.reaches_back_to)
    return (
        f"The journal reaches back to {since}, with older or other entries missing: "
        "there may have been more changes."
    )


def _words(*texts: str) -> str:
    return "  ".join(map(escape, texts))


def _time(milliseconds: int) -> str:
    return (
        datetime.fromtimestamp(milliseconds / 1000, UTC)
        .isoformat(timespec="milliseconds")
        .replace("+00:00", "Z")
    )
