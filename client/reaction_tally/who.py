"""Who reacted to a message with one value, page by page, oldest first.

One request reads all that is needed of most messages:

- A small message has few actions. One step of HSCAN is all of them.
- A ranked message has a sorted set of the users. It is complete if it has as many as the count.

Only where neither holds, a second request reads all actions. It is slower, and as exact.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from reaction_tally.keys import (
    RANKED_ABOVE,
    WHO_EPOCH,
    Keys,
    action_prefix,
    action_timetoken,
    tally_field,
)
from reaction_tally.operations import Command, Operation, Operations, Request
from reaction_tally.replies import check_reply, pairs
from reaction_tally.values import Reactor, Who

TIES: Final = 15
"""So many users of one action timetoken may stand before the page, without a second request."""
MORE_TIES: Final = 8
"""If there are more, so many times as many are asked for."""
_PATTERN: Final = re.compile(r"[*?\[\]\\]")
_AFTER: Final = re.compile(r"([0-9]{1,20}):(.*)", re.ASCII | re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class WhoQuery:
    """What is asked about one tally of a message."""

    channel: str
    timetoken: str
    type: str
    value: str
    limit: int
    after: Reactor | None = None

    @property
    def tally(self) -> str:
        """The field of ``counts``."""
        return tally_field(self.type, self.value)


def read_who(operations: Operations, query: WhoQuery) -> Operation[Who]:
    """Return a page of the users of a tally."""
    surplus = TIES if query.after else 0
    while True:
        wanted = query.limit + 1 + surplus
        commands = _commands(operations.keys, query, wanted)
        count, size, ranked, scan = yield Request(commands, is_atomic=True)
        if not (check_reply(count) and operations.is_known):
            # In a cluster the schema is in another slot, so it has a request of its own.
            yield from operations.check()
        if not count:
            return Who(reactors=(), total=0)
        cursor, actions = check_reply(scan)
        if int(cursor) == 0:  # one step has read all of them
            return _page(query, count, _of_actions(query, actions))
        if size != int(count):
            return (yield from _read_all(operations, query))
        reactors = _of_scores(check_reply(ranked))
        page = _page(query, count, reactors)
        if page.after or len(reactors) < wanted:
            return page
        surplus *= MORE_TIES


def _commands(keys: Keys, query: WhoQuery, wanted: int) -> list[Command]:
    channel, timetoken = query.channel, query.timetoken
    counts, actions, _ = keys.message(channel, timetoken)
    who = keys.who(channel, timetoken, query.tally)
    first = "-inf"
    if query.after:
        # Users of the same timetoken may follow, so it is read again.
        first = str(int(query.after.at) - WHO_EPOCH)
    pattern = _PATTERN.sub(r"\\\g<0>", action_prefix(query.tally)) + "*"
    return [
        ("HGET", counts, query.tally),
        ("ZCARD", who),
        ("ZRANGEBYSCORE", who, first, "+inf", "WITHSCORES", "LIMIT", 0, wanted),
        ("HSCAN", actions, 0, "MATCH", pattern, "COUNT", RANKED_ABOVE + 1),
    ]


def _read_all(operations: Operations, query: WhoQuery) -> Operation[Who]:
    """Return a page from all actions of the message."""
    counts, actions, _ = operations.keys.message(query.channel, query.timetoken)
    commands: list[Command] = [("HGET", counts, query.tally), ("HGETALL", actions)]
    replies = yield Request(commands, is_atomic=True)
    count, fields = map(check_reply, replies)
    return _page(query, count, _of_actions(query, fields))


def _of_actions(query: WhoQuery, reply: Any) -> list[Reactor]:
    """Return the users in fields of ``actions``."""
    prefix = action_prefix(query.tally)
    return [
        Reactor(field.removeprefix(prefix), at)
        for field, at in pairs(reply)
        if field.startswith(prefix)
    ]


def _of_scores(reply: Any) -> list[Reactor]:
    """Return the users of a ``who`` key."""
    return [Reactor(user, action_timetoken(score)) for user, score in pairs(reply)]


def _page(query: WhoQuery, count: Any, reactors: Iterable[Reactor]) -> Who:
    """Return the page of users who follow ``after``."""
    total = int(count or 0)
    after = _order(query.after) if query.after else None
    found = [each for each in reactors if after is None or _order(each) > after]
    found.sort(key=_order)
    shown = tuple(found[: query.limit])
    if len(found) > query.limit:
        return Who(reactors=shown, total=total, after=after_text(shown[-1]))
    return Who(reactors=shown, total=total)


def _order(reactor: Reactor) -> tuple[int, str, bytes]:
    """Return the sort key: the oldest first, then as a sorted set has them."""
    user = reactor.user.encode("utf-8", "surrogateescape")
    return len(reactor.at), reactor.at, user


def after_text(reactor: Reactor) -> str:
    """Return the text with which the next page is asked for."""
    return f"{reactor.at}:{reactor.user}"


def read_after(after: str) -> Reactor | None:
    """Return the last user of the page before; None if no page has this text."""
    found = _AFTER.fullmatch(after)
    return Reactor(user=found[2], at=found[1]) if found else None
