"""A PubNub that answers what a test tells it to: a small HTTP server on a free loopback port."""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

from aiohttp import web

from tests.waiting import wait_until

SUBSCRIBE_KEY = "sub-c-scripted"


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer: status, headers and bytes; or none, if it hangs or drops the connection."""

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    after: asyncio.Event | None = None  # answers only once this is set
    hangs: bool = False
    drops: bool = False
    drops_halfway: bool = False
    drips: bool = False  # a byte now and then, and never the last


def json_reply(body: object, status: int = 200, **headers: str) -> Reply:
    """Return a JSON answer; an underscore in a header's name stands for a dash."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Reply(status, json.dumps(body).encode(), {"Content-Type": "application/json", **named})


def answer(timetoken: str, *messages: object, region: int = 4) -> Reply:
    """Return a subscribe answer with this cursor and these messages."""
    return json_reply({"t": {"t": timetoken, "r": region}, "m": list(messages)})


@dataclass(frozen=True, slots=True)
class Asked:
    """One request as it came over the wire, nothing decoded but the query of ``parameters``."""

    target: str

    @property
    def path(self) -> str:
        """The path, still encoded."""
        return urlsplit(self.target).path

    @property
    def parameters(self) -> dict[str, str]:
        """The query's parameters by name, decoded; of a repeated name the first."""
        return {name: values[0] for name, values in parse_qs(urlsplit(self.target).query).items()}


class ScriptedPubNub:
    """Answers each request from its script, in order; the last reply is repeated."""

    def __init__(self) -> None:
        self.requests: list[Asked] = []
        self.waiting = 0  # requests that hang at this moment
        self._replies: dict[str, list[Reply]] = {}
        self._closing = asyncio.Event()
        self._server = web.Server(self._serve, handler_cancellation=True, access_log=None)
        self._runner = web.ServerRunner(self._server, shutdown_timeout=0.1)

    async def __aenter__(self) -> Self:
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0, backlog=512).start()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._closing.set()
        await self._runner.cleanup()

    @property
    def origin(self) -> str:
        """The host and port to be used as PubNub's origin."""
        return f"127.0.0.1:{self._runner.addresses[0][1]}"

    @property
    def open_connections(self) -> int:
        """How many connections clients hold open."""
        return len(self._server.connections)

    def script(self, *replies: Reply, under: str = "/") -> None:
        """Answer requests below the path ``under`` with these replies; the longest path counts."""
        self._replies[under] = list(replies)

    async def asked(self, count: int) -> None:
        """Wait until this many requests have come in all."""
        await wait_until(lambda: len(self.requests) >= count)

    def _next(self, path: str) -> Reply:
        fitting = max((under for under in self._replies if path.startswith(under)), key=len)
        replies = self._replies[fitting]
        return replies.pop(0) if len(replies) > 1 else replies[0]

    async def _serve(self, request: web.BaseRequest) -> web.StreamResponse:
        asked = Asked(request.raw_path)
        self.requests.append(asked)
        reply = self._next(asked.path)
        if reply.after is not None:
            await reply.after.wait()
        if reply.hangs:
            await self._hang()
        if reply.drops:
            return _cut(request)
        if reply.drops_halfway or reply.drips:
            return await self._part(request, reply)
        return web.Response(status=reply.status, body=reply.body, headers=reply.headers)

    async def _hang(self) -> None:
        self.waiting += 1
        try:
            await self._closing.wait()
        finally:
            self.waiting -= 1

    async def _part(self, request: web.BaseRequest, reply: Reply) -> web.StreamResponse:
        response = web.StreamResponse(status=reply.status, headers={"Content-Length": "100000"})
        await response.prepare(request)
        await response.write(b"{")
        while reply.drips and not self._closing.is_set():
            await response.write(b" ")
            await asyncio.sleep(0.05)
        return _cut(request)


def _cut(request: web.BaseRequest) -> web.Response:
    transport: Any = request.transport
    if transport is not None:
        transport.abort()
    return web.Response()
