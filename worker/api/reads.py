"""The routes that read once: tallies of messages, who reacted, and the top messages."""

import asyncio
import hashlib
from typing import Final

from aiohttp import hdrs, web

from reaction_tally import AsyncTallyReader
from reaction_tally.arguments import MOST_NAMES, MOST_REACTORS
from reaction_tally.errors import TallyReadError
from worker.api.documents import Document, as_text, page_document, top_document, who_document
from worker.api.failures import ReadFailures
from worker.api.parameters import Parameters
from worker.web.site import Call

MOST_MESSAGES: Final = 100
MOST_TYPES: Final = 20
MOST_TOP: Final = 100
TOPS_AT_ONCE: Final = 2
"""A top list reads the counts of every message of its channel: the others wait."""
AGE: Final = "heartbeat_age_seconds"
AGE_TIMEOUT_SECONDS: Final = 1.0
"""A page waits so long for the age of the last heartbeat, and comes without it then."""
AGES_AT_ONCE: Final = 2
"""So a node that hangs keeps few connections from the pages."""
TAG_BYTES: Final = 12
ETAG_ANY: Final = "*"
"""In If-None-Match: whatever the tag is."""


class Reads:
    """Answers the routes that read once."""

    def __init__(self, reader: AsyncTallyReader, failures: ReadFailures) -> None:
        self._reader = reader
        self._failures = failures
        self._tops = asyncio.Semaphore(TOPS_AT_ONCE)
        self._ages = asyncio.Semaphore(AGES_AT_ONCE)

    async def tallies(self, call: Call) -> web.StreamResponse:
        """Answer the reactions to messages of a channel, at one instant."""
        parameters = Parameters(call, ("message", "me", "type", "names"))
        channel = parameters.channel()
        messages = parameters.timetokens("message", MOST_MESSAGES)
        me = parameters.text("me")
        types = parameters.texts("type", MOST_TYPES) or None
        names = parameters.number("names", 0, 0, MOST_NAMES)
        with self._failures.translated():
            page = await self._reader.page(
                channel,
                messages,
                types=types,
                me=me,
                names=names,
            )
        age = await self._read_age()
        document = page_document(
            channel,
            page,
            age,
            has_me=me is not None,
            has_names=names > 0,
        )
        # Another position alone is no other page: changes from the older one lead to it, too.
        tagged = {
            **document,
            "position": None,
            AGE: None,
        }
        return _response(call, document, tagged, is_private=me is not None)

    async def _read_age(self) -> Document:
        # In a cluster another node may have it, and the page must not fail with that one.
        try:
            async with asyncio.timeout(AGE_TIMEOUT_SECONDS), self._ages:
                return {AGE: await self._reader.heartbeat_age()}
        except (TallyReadError, TimeoutError):
            return {}

    async def who(self, call: Call) -> web.StreamResponse:
        """Answer who chose a value on a message."""
        parameters = Parameters(call, ("type", "value", "limit", "after"))
        channel, timetoken = parameters.channel(), parameters.timetoken()
        type, value = parameters.needed("type"), parameters.needed("value")
        limit = parameters.number("limit", 50, 1, MOST_REACTORS)
        after = parameters.after()
        with self._failures.translated():
            who = await self._reader.who(channel, timetoken, type, value, limit=limit, after=after)
        document = who_document(who)
        return _response(call, document, document)

    async def top(self, call: Call) -> web.StreamResponse:
        """Answer the messages of a channel with the most reactions."""
        parameters = Parameters(call, ("type", "value", "since", "limit"))
        channel = parameters.channel()
        type, value = parameters.text("type"), parameters.text("value")
        since = parameters.since()
        limit = parameters.number("limit", 10, 1, MOST_TOP)
        async with self._tops:
            with self._failures.translated():
                top = await self._reader.top(
                    channel, type=type, value=value, since=since, limit=limit
                )
        document = top_document(channel, top)
        return _response(call, document, document)


def _response(
    call: Call,
    document: Document,
    tagged: Document,
    *,
    is_private: bool = False,
) -> web.Response:
    """Return a document, or 304 if the client has it. Its tag is that of ``tagged``."""
    tag = _tag(tagged)
    headers = {
        hdrs.ETAG: f'W/"{tag}"',
        hdrs.CACHE_CONTROL: "private, no-cache" if is_private else "no-cache",
    }
    known = {each.value for each in call.request.if_none_match or ()}
    if known & {tag, ETAG_ANY}:
        return web.Response(status=304, headers=headers)
    body = as_text(document).encode() + b"\n"
    return web.Response(body=body, content_type="application/json", headers=headers)


def _tag(document: Document) -> str:
    digest = hashlib.blake2b(as_text(document).encode(), digest_size=TAG_BYTES)
    return digest.hexdigest()
