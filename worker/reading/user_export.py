"""Everything that is kept of some users."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from reaction_tally.journal import JournalChange
from worker.store.refused_users import RefusedUsers
from worker.store.user_data import Kind, Trace, UserData
from worker.store.user_streams import Names, changes_of


@dataclass(frozen=True, slots=True)
class JournaledChange:
    """A change that names a user, and where it stands."""

    channel: str
    entry: str
    """The id of its entry in the journal."""
    change: JournalChange


@dataclass(slots=True, kw_only=True)
class UserExport:
    """What is kept of one user."""

    forgotten_at: int | None = None
    """Milliseconds of the request to forget; None if there was none."""
    actions: set[Trace] = field(default_factory=set)
    removed: set[Trace] = field(default_factory=set)
    changes: list[JournaledChange] = field(default_factory=list)
    letters: dict[str, Mapping[str, str]] = field(default_factory=dict)
    """Entries of the quarantine that name the user."""

    @property
    def is_empty(self) -> bool:
        """Whether nothing is kept."""
        return not any((self.actions, self.removed, self.changes, self.letters))


async def export_users(
    data: UserData,
    refused: RefusedUsers,
) -> dict[str, UserExport]:
    """Return what is kept of each user."""
    exports = {uuid: UserExport() for uuid in sorted(data.uuids)}
    for uuid, at in (await refused.since(data.uuids)).items():
        exports[uuid].forgotten_at = at
    await _find_traces(data, exports)
    await _find_changes(data, exports)
    await _find_letters(data, exports)
    return exports


async def _find_traces(data: UserData, exports: Mapping[str, UserExport]) -> None:
    async for traces in data.traces():
        for trace in traces:
            _, _, uuid = trace.field.split(":", 2)
            if trace.kind is Kind.ACTIONS:
                exports[uuid].actions.add(trace)
            elif trace.kind is Kind.REMOVED:
                exports[uuid].removed.add(trace)


async def _find_changes(data: UserData, exports: Mapping[str, UserExport]) -> None:
    async for channel, entries in data.entries():
        for entry_id, fields in entries:
            for change in changes_of(fields):
                export = exports.get(change.uuid)
                if export is None:
                    continue
                found = JournaledChange(channel, entry_id, change)
                export.changes.append(found)


async def _find_letters(data: UserData, exports: Mapping[str, UserExport]) -> None:
    names = {uuid: Names([uuid]) for uuid in exports}
    async for letters in data.letters():
        for entry_id, letter in letters:
            for uuid, name in names.items():
                if name.are_in(letter):
                    exports[uuid].letters[entry_id] = letter
