"""Many messages of a channel at one instant, where Redis runs no script for its user.

Each step is atomic. What a step reads of actions is known from the counts of the step before.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Final

from reaction_tally.errors import RedisUnavailableError
from reaction_tally.journal import START
from reaction_tally.keys import RANKED_ABOVE, Keys, action_prefix, tally_parts
from reaction_tally.operations import Command, Operation, Operations, Request
from reaction_tally.ranked import RankedNames, add_ranked
from reaction_tally.replies import check_reply, pairs, text
from reaction_tally.rows import PageQuery, Row, page_of
from reaction_tally.values import Page

TRIES: Final = 20
"""Steps after which a channel changes too fast. Usually two are enough."""


def read_in_steps(operations: Operations, query: PageQuery) -> Operation[Page]:
    """Return a page."""
    (schema,) = yield Request([operations.schema])
    operations.expect_schema(schema)
    step = Step(operations.keys, query)
    for _ in range(TRIES):
        replies = yield Request(step.commands(), is_atomic=True)
        page = step.page(replies)
        if page:
            return page
    raise too_fast(query)


def too_fast(query: PageQuery) -> RedisUnavailableError:
    """Return the error about a channel that changes between all tries to read it."""
    return RedisUnavailableError(f"The channel {query.channel!r} changes too fast to be read.")


class Step:
    """Reads the counts of all messages, and of the actions what the step before showed."""

    def __init__(self, keys: Keys, query: PageQuery) -> None:
        self._keys = keys
        self._query = query
        self._own: dict[str, list[str]] = {}
        """Message → the fields of ``me`` that are read."""
        self._named: set[str] = set()
        """The messages whose actions are read for names."""
        self._ranked = RankedNames(keys, query.channel, query.names)

    def commands(self) -> list[Command]:
        """Return what the next step reads."""
        keys = self._keys
        channel = self._query.channel
        commands: list[Command] = [
            ("GET", keys.head(channel)),
            ("EXISTS", keys.owed(channel)),
        ]
        for timetoken in self._query.timetokens:
            counts, actions, _ = keys.message(channel, timetoken)
            own = self._own.get(timetoken) or [""]
            is_named = timetoken in self._named
            # Every message has four commands, so that replies are found by their place.
            commands += [
                ("HGETALL", counts),
                ("HLEN", actions),
                ("HMGET", actions, *own),
                ("HGETALL", actions) if is_named else ("EXISTS", actions),
            ]
        return commands + self._ranked.commands()

    def page(self, replies: Sequence[Any]) -> Page | None:
        """Return the page; None if something is needed that was not read."""
        size = 2 + 4 * len(self._query.timetokens)
        head, is_owed, *rest = map(check_reply, replies[:size])
        ranked = self._ranked.found(replies[size:])
        is_whole = True
        messages: list[list[Row]] = []
        for number, timetoken in enumerate(self._query.timetokens):
            counts, size, own, actions = rest[4 * number : 4 * number + 4]
            rows = self._rows(counts)
            if self._needs_more(timetoken, rows, size):
                is_whole = False
            else:
                self._add_own(rows, timetoken, own)
                if size > RANKED_ABOVE:
                    add_ranked(rows, timetoken, ranked)
                elif timetoken in self._named:
                    self._add_names(rows, actions)
            messages.append(rows)
        if is_whole:
            return page_of(self._query, text(head or START), is_owed, messages)
        return None

    def _rows(self, counts: Any) -> list[Row]:
        types = self._query.types
        return [
            Row(field, count)
            for field, count in pairs(counts)
            if types is None or tally_parts(field)[0] in types
        ]

    def _needs_more(self, timetoken: str, rows: Sequence[Row], size: int) -> bool:
        """Tell whether a message needs more than was read, and note what it needs."""
        needs_own = self._needs_own(timetoken, rows)
        needs_names = self._needs_names(timetoken, rows, size)
        return needs_own or needs_names

    def _needs_own(self, timetoken: str, rows: Sequence[Row]) -> bool:
        fields = self._own_fields(rows)
        known = self._own.get(timetoken, [])
        missing = set(fields).difference(known)
        if missing:
            self._own[timetoken] = fields
        return bool(missing)

    def _needs_names(self, timetoken: str, rows: Sequence[Row], size: int) -> bool:
        if self._query.names == 0 or not rows or size == 0:
            return False
        if size > RANKED_ABOVE:
            return self._ranked.needs(timetoken, rows)
        is_new = timetoken not in self._named
        self._named.add(timetoken)
        return is_new

    def _own_fields(self, rows: Iterable[Row]) -> list[str]:
        user = self._query.me
        if user is None:
            return []
        return [action_prefix(row.field) + user for row in rows]

    def _add_own(self, rows: Sequence[Row], timetoken: str, reply: Sequence[Any]) -> None:
        known = self._own.get(timetoken, [])
        times = dict(zip(known, reply, strict=False))
        for row, field in zip(rows, self._own_fields(rows), strict=False):
            row.mine_at = text(times.get(field) or "")

    def _add_names(self, rows: Iterable[Row], reply: Any) -> None:
        of_prefix = {action_prefix(row.field): row for row in rows}
        for field, timetoken in sorted(pairs(reply), key=_by_time):
            type, value, user = field.split(":", 2)
            row = of_prefix.get(f"{type}:{value}:")
            if row:
                row.first_at = row.first_at or timetoken
                row.last_at = timetoken
                if len(row.names) < self._query.names:
                    row.names = (*row.names, user)


def _by_time(action: tuple[str, str]) -> tuple[int, str]:
    """Return the sort key of an action. Those of one time stay in the order of the hash."""
    _, timetoken = action
    return len(timetoken), timetoken
