"""The route of changes: server-sent events that a client may resume."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final

from aiohttp import web

from reaction_tally.following import Item
from reaction_tally.operations import Operations
from reaction_tally.senders import AsyncSender
from worker.api.failures import ReadFailures
from worker.api.hub import Hub
from worker.api.missed import read_missed, read_positions
from worker.api.parameters import Parameters
from worker.api.subscriber import Subscriber, read_id, resets
from worker.web.problems import require
from worker.web.site import Call
from worker.web.streams import Stream, Streams

MOST_CHANNELS: Final = 50
BEGIN_SECONDS: Final = 10.0
"""How long the beginning of a stream may take."""
MAX_ID: Final = 3_000
LAST_EVENT_ID: Final = "Last-Event-ID"


class Changes:
    """Answers the route of changes."""

    def __init__(
        self,
        hub: Hub,
        streams: Streams,
        sender: AsyncSender,
        operations: Operations,
        failures: ReadFailures,
    ) -> None:
        self._hub = hub
        self._streams = streams
        self._sender = sender
        self._operations = operations
        self._failures = failures

    async def follow(self, call: Call) -> web.StreamResponse:
        """Stream what changes in some channels, or in all of them."""
        parameters = Parameters(call, ("channel", "since"))
        channels = parameters.texts("channel", MOST_CHANNELS)
        _refuse_patterns(channels)
        since = parameters.text("since", MAX_ID)
        # A browser that comes again sends the same query, and the newest id beside it.
        since = call.request.headers.get(LAST_EVENT_ID) or since
        stream = self._streams.open(call.request)
        with self._hub.used(stream.end):
            if channels:
                return await self._follow_some(call, stream, channels, since)
            return await self._follow_all(call, stream, since)

    async def _follow_all(
        self,
        call: Call,
        stream: Stream,
        since: str | None,
    ) -> web.StreamResponse:
        async with self._beginning():
            await self._hub.ready()
        with self._hub.joined_all(stream.send, since) as first:
            return await stream.run(call.headers, first)

    async def _follow_some(
        self,
        call: Call,
        stream: Stream,
        channels: Sequence[str],
        since: str | None,
    ) -> web.StreamResponse:
        subscriber = Subscriber(channels, stream.send)
        with self._hub.joined(subscriber):
            async with self._beginning():
                await self._hub.ready()
                positions, missed = await self._catch_up(subscriber.channels, since)
            first = subscriber.begin(positions, missed)
            return await stream.run(call.headers, first)

    @asynccontextmanager
    async def _beginning(self) -> AsyncIterator[None]:
        """Let a stream begin soon, or not at all: nobody waits for nothing.

        Raises:
            ProblemError: Redis is away.
        """
        with self._failures.translated():
            async with asyncio.timeout(BEGIN_SECONDS):
                yield

    async def _catch_up(
        self,
        channels: tuple[str, ...],
        since: str | None,
    ) -> tuple[dict[str, str], Sequence[Item]]:
        """Return where a client begins, and what it has missed."""
        known = read_id(since, channels) if since else None
        if known:
            return known, await self._sender.run(read_missed(self._operations, known))
        now = await self._sender.run(read_positions(self._operations, channels))
        return now, resets(now) if since else ()


def _refuse_patterns(channels: Sequence[str]) -> None:
    patterns = [channel for channel in channels if channel.endswith(".*")]
    require(all(channels), "a channel has a name.", "channel")
    detail = "changes are those of channels; a pattern such as a.* is none."
    require(not patterns, detail, "channel")
