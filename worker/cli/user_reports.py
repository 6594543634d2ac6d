"""What is kept of users, and what was deleted, as lines and as JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING

from reaction_tally.keys import read_action_field
from worker.cli.times import iso, time_of
from worker.domain.position import order
from worker.telemetry.text import escape

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from worker.applying.user_forgetting import ErasureReport
    from worker.reading.user_export import JournaledChange, UserExport
    from worker.store.user_data import Trace


def export_json(exports: Mapping[str, UserExport]) -> dict[str, object]:
    """Return what is kept of each user; times are in UTC."""
    return {"users": {uuid: _export_json(export) for uuid, export in exports.items()}}


def _export_json(export: UserExport) -> dict[str, object]:
    at = export.forgotten_at
    return {
        "forgotten_at": iso(at),
        "actions": list(map(_trace_json, _sorted(export.actions))),
        "removed": list(map(_trace_json, _sorted(export.removed))),
        "journal": list(map(_change_json, export.changes)),
        "quarantine": [{"id": id, **letter} for id, letter in export.letters.items()],
    }


def _sorted(traces: Iterable[Trace]) -> list[Trace]:
    return sorted(traces, key=lambda trace: (trace.channel, order(trace.timetoken), trace.field))


def _trace_json(trace: Trace) -> dict[str, object]:
    type, value, _ = read_action_field(trace.field)
    return {
        "channel": trace.channel,
        "message_timetoken": trace.message_timetoken,
        "type": type,
        "value": value,
        "action_timetoken": trace.timetoken,
        "time": iso(time_of(trace.timetoken)),
    }


def _change_json(journaled: JournaledChange) -> dict[str, object]:
    change = journaled.change
    written, _, _ = journaled.entry.partition("-")
    return {
        "channel": journaled.channel,
        "id": journaled.entry,
        "time": iso(int(written)),
        "event": change.event,
        "outcome": change.outcome,
        "message_timetoken": change.message_timetoken,
        "type": change.type,
        "value": change.value,
        "action_timetoken": change.action_timetoken,
        "count": change.count,
    }


def export_lines(exports: Mapping[str, UserExport]) -> Iterator[str]:
    """Yield what is kept of each user, for people."""
    for uuid, export in exports.items():
        name = escape(uuid)
        if export.forgotten_at is not None:
            since = iso(export.forgotten_at)
            yield f"{name}: forgotten since {since}. Later events are refused."
        if export.is_empty:
            yield f"{name}: nothing is kept."
        else:
            yield f"{name}: {_sums(export)}."
            yield from _export_lines(export)


def _sums(export: UserExport) -> str:
    counts = {
        "live actions": len(export.actions),
        "removed actions": len(export.removed),
        "changes in journals": len(export.changes),
        "entries in the quarantine": len(export.letters),
    }
    return ", ".join(f"{count} {what}" for what, count in counts.items())


def _export_lines(export: UserExport) -> Iterator[str]:
    for kind, traces in {"live": export.actions, "removed": export.removed}.items():
        for trace in _sorted(traces):
            yield _line(kind, *_trace_json(trace).values())
    for journaled in export.changes:
        yield _line("journal", *_change_json(journaled).values())
    for entry_id, letter in export.letters.items():
        yield _line("quarantine", entry_id, *letter.values())


def _line(*columns: object) -> str:
    return "  ".join(["", *map(escape, map(str, columns))])


def forget_json(users: int, report: ErasureReport) -> dict[str, object]:
    """Return what was deleted of all users together."""
    return {
        "users": users,
        "actions": report.actions,
        "removed": report.tombstones,
        "journal": report.entries,
        "quarantine": report.letters,
    }


def forget_lines(users: int, report: ErasureReport) -> Iterator[str]:
    """Yield what was deleted, and what PubNub still has."""
    people = "1 user" if users == 1 else f"{users} users"
    yield (
        f"{people} forgotten: {report.actions} live actions, {report.tombstones} removed actions, "
        f"{report.entries} entries of journals and {report.letters} of the quarantine deleted. "
        "The counts are exact without them. Later events are refused."
    )
    yield (
        f"PubNub may still list the {report.actions} live actions, and those that an earlier call "
        "deleted here, until they are removed there: "
        "one call of its Remove action API for each. `tally users export`, typed before this, "
        "lists them with their timetokens. No worker counts them."
    )
    yield "Backups and older copies of Redis still hold them: see deploy/personal-data.md."


def undo_json(users: int, undone: int) -> dict[str, object]:
    """Return how many users are counted again."""
    return {"users": users, "undone": undone}


def undo_lines(users: int, undone: int) -> Iterator[str]:
    """Yield how many users are counted again, and what to do."""
    if not undone:
        yield "None of these users was forgotten: nothing changes. Is the uuid right?"
        return

    yield (
        f"{undone} of {users} users were forgotten. Their events are counted again: "
        "workers know it within ten seconds."
    )
    yield (
        "Then `tally reconcile` gets back what PubNub still lists of them; "
        "`tally reconcile CHANNEL…` is quicker."
    )
