"""Many messages of a channel at one instant, by one read-only script."""

import hashlib
from functools import cache
from importlib.resources import files
from typing import Final

from redis.exceptions import NoScriptError

from reaction_tally.keys import Keys, encoded_part
from reaction_tally.operations import Command, Operation, Operations, Request
from reaction_tally.replies import check_reply, is_forbidden, text, texts
from reaction_tally.rows import Query, page_of
from reaction_tally.steps import read_in_steps
from reaction_tally.values import Page

MANY: Final = 128
"""Actions of a message with many, as in ``lua/page.lua``."""


def read_page(operations: Operations, query: Query) -> Operation[Page]:
    """Return the messages of a query, in one round trip."""
    keys = operations.keys
    call = _script_call("EVALSHA", sha1(), keys, query)
    schema, reply = yield Request([operations.schema, call])
    operations.expect_schema(schema)
    if isinstance(reply, NoScriptError):
        call = _script_call("EVAL", source(), keys, query)
        (reply,) = yield Request([call])
    if is_forbidden(reply):
        return (yield from read_in_steps(keys, query))
    head, is_owed, *messages = check_reply(reply)
    rows = [list(map(texts, message)) for message in messages]
    return page_of(query, text(head), is_owed, rows)


def _script_call(command: str, script: str, keys: Keys, query: Query) -> Command:
    channel, user = query.channel, query.me
    names = [keys.head(channel), keys.owed(channel)]
    for timetoken in query.timetokens:
        counts, actions, _ = keys.message(channel, timetoken)
        names += (counts, actions)
    has_user = int(user is not None)
    types = map(encoded_part, query.types or ())
    return (
        command,
        script,
        len(names),
        *names,
        query.names,
        has_user,
        user or "",
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
