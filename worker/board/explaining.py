"""How the counts of one message came to be, as the board shows it."""

from typing import Any, Final

from reaction_tally import AsyncTallyReader
from worker.board.activity import cut
from worker.domain.tally import by_count
from worker.reading.lately import last_changes
from worker.store.journal import Journal

CHANGES: Final = 50
"""So many of the last changes are shown."""
TALLIES: Final = 8
"""Of so many tallies the users are shown."""
USERS: Final = 12


class Explainer:
    """Explains messages, one at a time."""

    def __init__(self, reader: AsyncTallyReader, journal: Journal) -> None:
        self._reader = reader
        self._journal = journal

    async def explain(self, channel: str, message: str) -> dict[str, Any]:
        """Return the counts of a message, who reacted, and the last changes.

        Raises:
            TallyReadError: a name is malformed, or Redis does not answer.
            RedisUnavailableError: Redis does not answer.
        """
        counts = await self._reader.get(channel, message)
        tallies = [(type, value, count) for type, value, count in by_count(counts)]
        lately = await last_changes(self._journal, channel, message, CHANGES)
        who = [await self._who(channel, message, *tally) for tally in tallies[:TALLIES]]
        return {
            "channel": channel,
            "message": message,
            "tallies": who,
            "more_tallies": max(0, len(tallies) - TALLIES),
            "changes": [
                {
                    "at": entry.milliseconds,
                    "origin": entry.origin,
                    "event": change.event,
                    "outcome": change.outcome,
                    "type": cut(change.type),
                    "value": cut(change.value),
                    "user": cut(change.uuid),
                    "count": change.count,
                }
                for entry, change in lately.changes
            ],
            "is_whole": lately.is_whole,
            "reaches_back_to": lately.reaches_back_to,
        }

    async def _who(
        self,
        channel: str,
        message: str,
        type: str,
        value: str,
        count: int,
    ) -> dict[str, Any]:
        who = await self._reader.who(channel, message, type, value, limit=USERS)
        return {
            "type": cut(type),
            "value": cut(value),
            "count": count,
            "users": [cut(reactor.user) for reactor in who.reactors],
            "more": max(0, who.total - len(who.reactors)),
        }
