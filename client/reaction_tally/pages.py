"""Many messages of a channel at one instant, by one read-only script."""

import hashlib
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import Any

from redis.exceptions import NoScriptError

from reaction_tally.keys import RANKED_ABOVE, Keys, encoded_part
from reaction_tally.operations import Command, Operation, Operations, Request
from reaction_tally.ranked import MOST_WHO_KEYS
from reaction_tally.replies import check_reply, is_forbidden, is_unknown_command, text, texts
from reaction_tally.rows import PageQuery, Row, page_of
from reaction_tally.steps import TRIES, read_in_steps, too_fast
from reaction_tally.values import Page


def read_page(operations: Operations, query: PageQuery) -> Operation[Page]:
    """Return the messages of a query, in one round trip.

    A script needs the name of every key that it touches. Names of a ranked message are in keys that
    only its counts tell. So a page with such names takes a second round trip.
    """
    who: list[Any] = []
    for _ in range(TRIES):
        if operations.is_script_refused:
            return (yield from read_in_steps(operations, query))
        reply = yield from _run_script(operations, query, who)
        if not operations.is_script_refused:
            lacking, *found = check_reply(reply)
            if not lacking:
                return _page(query, found)
            who += lacking
    raise too_fast(query)


def _run_script(
    operations: Operations,
    query: PageQuery,
    who: Sequence[Any],
) -> Operation[Any]:
    """Return the reply of the script, and note if it must not be run."""
    keys = operations.keys
    call = _script_call("EVALSHA", sha1(), keys, query, who)
    schema, reply = yield Request([operations.schema, call])
    operations.expect_schema(schema)
    if isinstance(reply, NoScriptError):
        reply = yield from _bring_script(keys, query, who)
    if is_forbidden(reply) or is_unknown_command(reply):
        operations.is_script_refused = True
    return reply


def _bring_script(keys: Keys, query: PageQuery, who: Sequence[Any]) -> Operation[Any]:
    """Run the script on a server that does not know it: a new one, or a replica until now."""
    call = _script_call("EVAL", source(), keys, query, who)
    (reply,) = yield Request([call])
    if not is_forbidden(reply):
        return reply
    # A worker may load a script, but run none by its text.
    load = ("SCRIPT", "LOAD", source())
    call = _script_call("EVALSHA", sha1(), keys, query, who)
    _, loaded = yield Request([load, call])
    return reply if isinstance(loaded, NoScriptError) else loaded


def _page(query: PageQuery, found: Sequence[Any]) -> Page:
    head, is_owed, *messages = found
    rows = [_rows(message, query.names) for message in messages]
    return page_of(query, text(head), is_owed, rows)


def _rows(reply: Sequence[Any], names: int) -> list[Row]:
    """Return the tallies of a message."""
    if names == 0:
        flat = iter(texts(reply))
        return list(map(Row, flat, flat, flat))
    rows: list[Row] = []
    for at in range(0, len(reply), 6):
        field, count, mine_at, first_at, last_at = texts(reply[at : at + 5])
        users = texts(reply[at + 5])
        rows.append(Row(field, count, mine_at, first_at, last_at, users))
    return rows


def _script_call(
    command: str,
    script: str,
    keys: Keys,
    query: PageQuery,
    who: Sequence[Any],
) -> Command:
    channel, user = query.channel, query.me
    names = [keys.head(channel), keys.owed(channel)]
    for timetoken in query.timetokens:
        counts, actions, _ = keys.message(channel, timetoken)
        names += (counts, actions)
    names += who
    has_user = int(user is not None)
    has_types = int(query.types is not None)
    types = map(encoded_part, query.types or ())
    return (
        command,
        script,
        len(names),
        *names,
        query.names,
        has_user,
        user or "",
        RANKED_ABOVE,
        MOST_WHO_KEYS,
        len(query.timetokens),
        has_types,
        *types,
    )


@cache
def source() -> str:
    """Return the text of ``lua/page.lua``."""
    path = files(__package__) / "lua" / "page.lua"
    return path.read_text(encoding="utf-8")


@cache
def sha1() -> str:
    """Return the digest by which Redis knows the script."""
    return hashlib.sha1(source().encode(), usedforsecurity=False).hexdigest()
