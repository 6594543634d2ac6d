"""The emulator over HTTP: start, stop, routes."""

import asyncio
import re
from collections import Counter
from collections.abc import Mapping
from random import Random
from time import time
from typing import Final, Self
from urllib.parse import unquote

from aiohttp import web

from worker.emulator.calls import Call
from worker.emulator.endpoints import ENDPOINTS
from worker.emulator.longpoll import LongPolls
from worker.emulator.replies import RefusedError, Reply, html_reply, service_error
from worker.emulator.state import State
from worker.emulator.storage import Truth
from worker.emulator.subscription import Subscription

MAX_REQUEST_LINE: Final = 32 * 1024
SUBSCRIBE: Final = ("GET", "/v2/subscribe/{key}/{channels}/0")
_ROUTES: Final = {
    # In a path, {name} stands for one segment.
    re.compile(re.sub(r"{(\w+)}", r"(?P<\1>[^/]*)", f"{method} {path}")): route
    for (method, path), route in {SUBSCRIBE: ("subscribe", None), **ENDPOINTS}.items()
}


class Emulator:
    """A PubNub for one laptop, over HTTP, inside an ``async with`` block.

    ``state`` can be called at any time from the loop's own thread.
    """

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        seed: int = 0,
        faults: Mapping[str, float] | None = None,
        subscribe_key: str | None = None,
        idle_seconds: float = 280.0,
    ) -> None:
        """Prepare, without listening.

        ``port`` 0 takes a free one. ``faults`` gives rates from 0 to 1 to
        names of ``FAULT_NAMES``, and ``seed`` makes them repeatable.
        Without a ``subscribe_key``, any key is accepted. An idle poll is
        answered after ``idle_seconds``.
        """
        random = Random(seed)  # noqa: S311 - faults are to be repeatable, not secret
        self.state = State(time, random, faults, subscribe_key or "demo")
        self.requests: Counter[str] = Counter()
        """The number of requests by operation, for example ``subscribe``."""
        self._address = (host, port)
        self._key = subscribe_key
        self._polls = LongPolls(self.state, idle_seconds)
        self._runner: web.ServerRunner | None = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Listen.

        Raises:
            OSError: The address cannot be used. The message names it.
        """
        server = web.Server(
            self._respond,
            handler_cancellation=True,
            access_log=None,
            max_line_size=2 * MAX_REQUEST_LINE,
        )
        runner = web.ServerRunner(server, shutdown_timeout=1.0)
        await runner.setup()
        host, port = self._address
        try:
            await web.TCPSite(runner, host, port).start()
        except OSError as error:
            await runner.cleanup()
            problem = f"the emulator cannot listen on {host}:{port}: {error.strerror}"
            raise OSError(error.errno, problem) from error
        self._polls.open()
        self._runner = runner

    async def stop(self) -> None:
        """End all requests. The emulator can be stopped twice."""
        runner = self._runner
        self._runner = None
        if runner is not None:
            self._polls.close()
            await runner.cleanup()

    @property
    def origin(self) -> str:
        """Its ``host:port``, the SDK's origin."""
        if self._runner is None:
            raise RuntimeError("the emulator is not running")
        host, port = self._runner.addresses[0][:2]
        return f"{host}:{port}"

    @property
    def waiting(self) -> int:
        """The number of polls that wait for an event now."""
        return self._polls.waiting

    def truth(self) -> Truth:
        """Return the true counts."""
        return self.state.truth()

    async def _respond(self, request: web.BaseRequest) -> web.StreamResponse:
        try:
            reply = await self._reply(request)
        except RefusedError as error:
            reply = error.reply
        if reply.dropped and request.transport is not None:
            request.transport.abort()
        return web.Response(
            body=reply.body,
            status=reply.status,
            content_type=reply.content_type,
            headers=reply.headers,
        )

    async def _reply(self, request: web.BaseRequest) -> Reply:
        if len(request.raw_path) > MAX_REQUEST_LINE:
            return html_reply(414, "Request-URI Too Long")
        place = request.raw_path.partition("?")[0]
        line = f"{request.method} {place}"
        match = next(filter(None, (path.fullmatch(line) for path in _ROUTES)), None)
        if match is None:
            return service_error(404, f"Not Found: {unquote(line)}", "Emulator")
        operation, endpoint = _ROUTES[match.re]
        path = match.groupdict()
        self.requests[operation] += 1
        if self._key not in {None, path.get("key", self._key)}:
            return service_error(400, "Invalid Subscribe Key")
        call = Call(path, request.query, await request.read(), request.method, place)
        names = _names(call)
        self.state.access.check(operation, names, call)
        await asyncio.sleep(self.state.faults.delay())
        trouble = self.state.trouble
        refusal = trouble.lasting(operation, names, call.query.get("auth"))
        refusal = refusal or trouble.passing(operation, names)
        if refusal:
            return refusal
        if endpoint is None:
            return await self._polls.answer(names, call)
        return endpoint(self.state, call)


def _names(call: Call) -> Subscription:
    path = call.path
    channels = path.get("channels") or path.get("channel", "")
    groups = call.query.get("channel-group", "")
    return Subscription.parse(channels, unquote(path["group"]) if "group" in path else groups)
