"""A PubNub that answers from a test's script, over HTTP on loopback."""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

import pytest
import trustme
from aiohttp import web
from pubnub.pnconfiguration import PNConfiguration
from pubnub.pubnub_asyncio import PubNubAsyncio

from tests.waiting import wait_until
from worker.domain.position import Cursor

SUBSCRIBE_KEY = "sub-c-scripted"
LATER = Cursor("17600000000000001", 12)


@contextmanager
def one_authority(tmp_path_factory: pytest.TempPathFactory) -> Iterator[pytest.MonkeyPatch]:
    """Let the SDK trust one authority. Reading all takes longer than most tests."""
    known = tmp_path_factory.mktemp("authority") / "known.pem"
    trustme.CA().cert_pem.write_to_path(known)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSL_CERT_FILE", str(known))
        yield patch


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer. It can also hang, or break the connection."""

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    after: asyncio.Event | None = None
    """Set when the answer may be sent."""
    hangs: bool = False
    drops: bool = False
    drops_halfway: bool = False
    drips: bool = False
    """Whether bytes come one by one, and never the last."""


def json_reply(body: object, status: int = 200, **headers: str) -> Reply:
    """Return a JSON answer. ``Retry_After`` stands for ``Retry-After``."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Reply(status, json.dumps(body).encode(), {"Content-Type": "application/json", **named})


def answer(timetoken: str, *messages: object, region: int = 4) -> Reply:
    """Return a subscribe answer."""
    return json_reply({"t": {"t": timetoken, "r": region}, "m": list(messages)})


@dataclass(frozen=True, slots=True)
class Asked:
    """One request as it came."""

    target: str

    @property
    def path(self) -> str:
        """The path, still encoded."""
        return urlsplit(self.target).path

    @property
    def parameters(self) -> dict[str, str]:
        """The query's parameters by name, decoded, without repetitions."""
        return {name: values[0] for name, values in parse_qs(urlsplit(self.target).query).items()}


class ScriptedPubNub:
    """Answers requests from its script, and records them.

    The last reply is repeated.
    """

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self._tls = tls
        self.requests: list[Asked] = []
        self.waiting = 0
        """The number of requests that hang now."""
        self._replies: dict[str, list[Reply]] = {}
        self._closing = asyncio.Event()
        self._server = web.Server(self._serve, handler_cancellation=True, access_log=None)
        self._runner = web.ServerRunner(self._server, shutdown_timeout=0.1)

    async def __aenter__(self) -> Self:
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0, backlog=512, ssl_context=self._tls).start()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._closing.set()
        await self._runner.cleanup()

    @property
    def origin(self) -> str:
        """The host and port."""
        return f"127.0.0.1:{self._runner.addresses[0][1]}"

    @property
    def open_connections(self) -> int:
        """The number of open connections."""
        return len(self._server.connections)

    def script(self, *replies: Reply, under: str = "/") -> None:
        """Answer requests with these replies if ``under`` begins their path.

        The longest match counts.
        """
        self._replies[under] = list(replies)

    async def asked(self, count: int) -> None:
        """Wait for this number of requests in total."""
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


@asynccontextmanager
async def sdk(origin: str, **settings: object) -> AsyncIterator[Any]:
    """Yield the SDK as it is shipped."""
    config = PNConfiguration()
    config.subscribe_key = SUBSCRIBE_KEY
    config.user_id = "tester"
    config.origin = origin
    config.ssl = False
    config.disable_config_locking = False  # else a DeprecationWarning, see ``test_sdk_traps.py``
    for name, value in settings.items():
        setattr(config, name, value)
    pubnub = PubNubAsyncio(config, custom_event_loop=asyncio.get_running_loop())
    try:
        yield pubnub
    finally:
        await pubnub.close_session()
        if pubnub._subscription_manager:
            pubnub._subscription_manager.stop()
            pubnub._subscription_manager.loop.close()
