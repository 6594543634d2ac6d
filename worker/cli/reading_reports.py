"""What the reading commands found, as plain lines and as JSON."""

from __future__ import annotations

from dataclasses import asdict
from operator import itemgetter
from typing import TYPE_CHECKING

from worker.cli.times import iso, time_of
from worker.domain.tally import Counts, by_count
from worker.telemetry.text import escape

if TYPE_CHECKING:  # one command needs one of them
    from collections.abc import Iterable, Iterator

    from reaction_tally import Reaction
    from worker.reading.channels import ChannelList, ListedChannel
    from worker.reading.show import Choosers, ShownMessage
    from worker.reading.top import RankedMessage, Top


def doubt_line(channels: Iterable[str]) -> str:
    """Return what is said of channels that are owed a repair."""
    named = ", ".join(map(escape, sorted(channels)))
    return (
        f"Events may have been missed in {named}. A worker repairs that; "
        "tally channels says what is owed, and why."
    )


def unknown_line(channel: str, namespace: str) -> str:
    """Return what is said of a channel that nobody has counted."""
    return (
        f"Nobody knows the channel {escape(channel)}: no worker has counted it "
        f"in the namespace {namespace}. Is the name right?"
    )


def message_json(shown: ShownMessage) -> dict[str, object]:
    """Return a message for programs."""
    return {
        "channel": shown.channel,
        "message_timetoken": shown.message.timetoken,
        "counts": shown.message.counts,
        "known": shown.is_known,
        "in_doubt": shown.in_doubt,
        "position": shown.position,
        "reactions": list(map(asdict, shown.by_type())),
    }


def message_lines(shown: ShownMessage) -> Iterator[str]:
    """Yield a message as plain lines: type, value and count; who it was, if that was asked."""
    if not shown.message.reactions:
        yield "No reactions."
    for reaction in shown.by_type():
        columns = [escape(reaction.type), escape(reaction.value), str(reaction.count)]
        if reaction.mine:
            columns.append("mine")
        if reaction.names:
            columns.append(first_users(reaction))
        yield "  ".join(columns)


def first_users(reaction: Reaction) -> str:
    """Return the first users, and how many others there are."""
    named = ", ".join(map(escape, reaction.names))
    others = reaction.count - len(reaction.names)
    if not named or not others:
        return named
    return f"{named} and {others:,} more"


def choosers_json(choosers: Choosers) -> dict[str, object]:
    """Return who chose a value, for programs."""
    return {
        "known": choosers.is_known,
        "users": list(map(asdict, choosers.users)),
    }


def choosers_lines(choosers: Choosers) -> Iterator[str]:
    """Yield a line for each user: since when, the type, and who."""
    if not choosers.users:
        yield "Nobody."
    for chooser in choosers.users:
        since = iso(time_of(chooser.at)) or chooser.at
        yield f"{since}  {escape(chooser.type)}  {escape(chooser.user)}"


def top_json(top: Top) -> dict[str, object]:
    """Return the top for programs."""
    return {
        "messages": list(map(_ranked_json, top.messages)),
        "known": top.is_known,
        "in_doubt": sorted(top.in_doubt),
        "channels_looked_at": len(top.looked_at),
        "failures": list(top.failures),
    }


def _ranked_json(message: RankedMessage) -> dict[str, object]:
    return {
        "channel": message.channel,
        "message_timetoken": message.timetoken,
        "count": message.count,
        "counts": message.counts,
    }


def top_lines(top: Top) -> Iterator[str]:
    """Yield a line for each message: channel, message, count, and all its tallies."""
    if not top.messages:
        yield "No reactions."
    for message in top.messages:
        columns = [escape(message.channel), message.timetoken, str(message.count)]
        columns.append(", ".join(values(message.counts)))
        yield "  ".join(columns)


def values(counts: Counts) -> list[str]:
    """Return each value and its count, most frequent first: ``👍 3``."""
    ranked = sorted(by_count(counts), key=itemgetter(2), reverse=True)
    return list(map(_value, ranked))


def _value(tally: tuple[str, str, int]) -> str:
    _, value, count = tally
    return f"{escape(value)} {count}"


def channels_json(listed: ChannelList) -> dict[str, object]:
    """Return the channels for programs; times are in UTC, null for never."""
    return {
        "channels": list(map(_channel_json, listed.channels)),
        "known": listed.known,
        "matching": listed.matching,
        "owed": listed.owed,
        "heartbeat_age_seconds": listed.heartbeat_age,
        "no_worker": listed.no_worker or None,
    }


def _channel_json(row: ListedChannel) -> dict[str, object]:
    return {
        "channel": row.channel,
        "changed": iso(row.proof.changed),
        "messages": row.messages,
        "owed": dict(zip(row.owed, map(iso, row.owed.values()), strict=True)),
        "late": row.is_late,
        "proven": iso(row.proof.recent),
        "proven_full": iso(row.proof.whole),
    }


def channels_lines(listed: ChannelList) -> Iterator[str]:
    """Yield a line for each channel, how many there are, and if no worker runs."""
    for row in listed.channels:
        proof = row.proof
        causes = map(_cause, row.owed.items())
        columns = (
            escape(row.channel),
            f"changed {iso(proof.changed) or 'never'}",
            f"messages {row.messages}",
            f"owed {', '.join(causes) or 'nothing'}",
            f"proven {iso(proof.recent) or 'never'}",
            f"proven in full {iso(proof.whole) or 'never'}",
        )
        yield "  ".join(columns)
    yield channels_sum(listed)
    if listed.no_worker:
        yield escape(listed.no_worker)


def _cause(mark: tuple[str, int]) -> str:
    cause, at = mark
    return f"{escape(cause)} since {iso(at) or '?'}"


def channels_sum(listed: ChannelList) -> str:
    """Return how many channels there are, and how many of them are owed a repair."""
    shown = len(listed.channels)
    matching = "" if listed.matching == listed.known else f" {listed.matching:,} match."
    return f"{shown:,} of {listed.known:,} channels shown.{matching} {listed.owed:,} owed a repair."
