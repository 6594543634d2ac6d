"""Many messages of a channel at one instant, where the user of Redis may run no script.

The actions of messages without counts are not read, so it takes two steps, each of them atomic.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from reaction_tally.errors import RedisUnavailableError
from reaction_tally.journal import START
from reaction_tally.keys import Keys, action_prefix, tally_parts
from reaction_tally.operations import Command, Operation, Request
from reaction_tally.replies import check_reply, pairs, text
from reaction_tally.rows import Query, Row, page_of
from reaction_tally.values import Page

TRIES: Final = 20
"""Steps after which a channel changes too fast. Usually two are enough."""


def read_in_steps(keys: Keys, query: Query) -> Operation[Page]:
    """Return a page.

    It also knows the first and last actions of messages with many.
    """
    step = Step(keys, query)
    for _ in range(TRIES):
        commands = step.commands()
        replies = yield Request(commands, is_atomic=True)
        page = step.page(replies)
        if page:
            return page
    raise RedisUnavailableError(
        f"The channel {query.channel!r} changes too fast to be read in steps. "
        "Permit EVALSHA and EVAL to the user of Redis."
    )


class Step:
    """Reads the counts of all messages, and the actions of those that had counts before."""

    def __init__(self, keys: Keys, query: Query) -> None:
        self._keys = keys
        self._query = query
        self._had_counts: set[str] = set()

    def commands(self) -> list[Command]:
        """Return what the next step reads."""
        keys = self._keys
        channel = self._query.channel
        head: Command = ("GET", keys.head(channel))
        owed: Command = ("EXISTS", keys.owed(channel))
        commands = [head, owed]
        for timetoken in self._query.timetokens:
            counts, actions, _ = keys.message(channel, timetoken)
            commands.append(("HGETALL", counts))
            is_wanted = timetoken in self._had_counts
            # Every message has two commands, so that replies are found by their place.
            commands.append(("HGETALL", actions) if is_wanted else ("EXISTS", counts))
        return commands

    def page(self, replies: Sequence[Any]) -> Page | None:
        """Return the page; None if a message has counts only now."""
        query = self._query
        head, is_owed, *rest = map(check_reply, replies)
        before = set(self._had_counts)
        messages: list[list[Row]] = []
        for timetoken, counts, actions in zip(
            query.timetokens,
            rest[::2],
            rest[1::2],
            strict=True,
        ):
            fields = dict(pairs(counts))
            if fields:
                self._had_counts.add(timetoken)
            live = pairs(actions) if timetoken in before else []
            messages.append(_rows(query, fields, live))
        if self._had_counts != before:
            return None
        return page_of(query, text(head or START), is_owed, messages)


def _rows(
    query: Query,
    counts: Mapping[str, str],
    actions: Iterable[tuple[str, str]],
) -> list[Row]:
    """Return the tallies of a message as the script answers them."""
    rows: list[Row] = []
    for field, count in counts.items():
        type, _ = tally_parts(field)
        if query.types is None or type in query.types:
            row = _row(query, field, count, actions)
            rows.append(row)
    return rows


def _row(
    query: Query,
    field: str,
    count: str,
    actions: Iterable[tuple[str, str]],
) -> Row:
    prefix = action_prefix(field)
    times: list[tuple[int, str, str]] = []
    mine_at = ""
    for name, timetoken in actions:
        if name.startswith(prefix):
            user = name.removeprefix(prefix)
            times.append((len(timetoken), timetoken, user))
            if user == query.me:
                mine_at = timetoken
    times.sort()
    if not times:
        return field, count, "", "", ""
    _, first_at, _ = times[0]
    _, last_at, _ = times[-1]
    users = [user for _, _, user in times[: query.names]]
    return field, count, mine_at, first_at, last_at, *users
