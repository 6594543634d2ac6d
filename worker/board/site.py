"""The board over HTTP: its files, its stream, and what is asked on demand."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final, TypeVar

from aiohttp import web
from msgspec.json import encode

from worker.board.feed import Feed
from worker.board.files import HEADERS, file_routes
from worker.board.follower import FAILURES
from worker.errors import ConfigurationError
from worker.web.access import Access
from worker.web.problems import ProblemError
from worker.web.site import Call, Site
from worker.web.streams import Streams

PREFIX: Final = "/board"
AT_ONCE: Final = 4
"""So many questions to Redis are under way at once, whoever asks them."""
ANSWER_SECONDS: Final = 10.0
LONGEST_TEXT: Final = 200
Result = TypeVar("Result")
Question = Callable[[], Awaitable[dict[str, Any]]]
"""Reads from Redis once it is its turn."""


class BoardPages:
    """Answers what the page asks for."""

    def __init__(self, feed: Feed, streams: Streams) -> None:
        self._feed = feed
        self._streams = streams
        self._turns = asyncio.Semaphore(AT_ONCE)

    def site(self, access: Access) -> Site:
        """Return the board for whoever has access. Its files are no secret."""
        files = file_routes(PREFIX)
        routes = {
            **files,
            f"{PREFIX}/stream": self.stream,
            f"{PREFIX}/snapshot": self.snapshot,
            f"{PREFIX}/channels": self.channels,
            f"{PREFIX}/messages": self.messages,
            f"{PREFIX}/explain": self.explain,
        }
        return Site(PREFIX, routes, access, open_paths=frozenset(files))

    async def stream(self, call: Call) -> web.StreamResponse:
        """Send the document, and then every update."""
        stream = self._streams.open(call.request)
        self._feed.follower.note_look()
        with self._feed.frames.joined(stream.send):
            return await stream.run(call.headers)

    async def snapshot(self, _: Call) -> web.StreamResponse:
        """Return the document, for who cannot have a stream."""
        self._feed.follower.note_look()
        await self._soon(self._feed.frames.first())
        return _json(self._feed.frames.snapshot())

    async def channels(self, call: Call) -> web.StreamResponse:
        """Return the channels that a search finds."""
        text = _text(call, "search")
        found = await self._read(partial(self._feed.rooms.search, text))
        return _json(encode(found))

    async def messages(self, call: Call) -> web.StreamResponse:
        """Return the messages of one channel."""
        channel = _text(call, "channel")
        found = await self._read(partial(self._feed.channel, channel))
        return _json(encode(found))

    async def explain(self, call: Call) -> web.StreamResponse:
        """Return how the counts of one message came to be."""
        channel, message = _text(call, "channel"), _text(call, "message")
        explain = partial(self._feed.explainer.explain, channel, message)
        found = await self._read(explain)
        return _json(encode(found))

    async def _read(self, question: Question) -> dict[str, Any]:
        """Return what is read from Redis; a few at a time.

        Raises:
            ProblemError: a name is malformed, or Redis cannot be read.
        """
        try:
            return await self._soon(self._in_turn(question))
        except (ValueError, ConfigurationError) as error:
            raise ProblemError(400, "PubNub has no such name.") from error
        except FAILURES as error:
            raise ProblemError(503, "Redis cannot be read now.") from error

    async def _in_turn(self, question: Question) -> dict[str, Any]:
        async with self._turns:
            return await question()

    async def _soon(self, work: Awaitable[Result]) -> Result:
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                return await work
        except TimeoutError:
            sentence = f"There was no answer within {ANSWER_SECONDS:g} s."
            raise ProblemError(503, sentence) from None


def _text(call: Call, name: str) -> str:
    values = call.query.get(name, [])
    if len(values) != 1 or len(values[0]) > LONGEST_TEXT:
        sentence = f"give it once, with {LONGEST_TEXT} characters at most."
        raise ProblemError(400, sentence, parameter=name)
    return values[0]


def _json(body: bytes) -> web.Response:
    return web.Response(body=body, content_type="application/json", headers=HEADERS)
