"""HTTP: finds the endpoint of a request, and turns its reply into bytes on the wire."""

import asyncio
from collections import Counter
from typing import Final

from aiohttp import web

from worker.emulator.calls import Call, Routes
from worker.emulator.control import CONTROLS
from worker.emulator.endpoints import ENDPOINTS, Endpoint
from worker.emulator.longpoll import LongPolls
from worker.emulator.replies import RefusedError, Reply, html_reply, service_error
from worker.emulator.state import State
from worker.emulator.subscription import Subscription

MAX_REQUEST_LINE: Final = 32 * 1024
SUBSCRIBE: Final = ("GET", "/v2/subscribe/{key}/{channels}/0")


class Server:
    """Answers HTTP requests from a state. `subscribe_key` None accepts any key; all share one keyset."""

    def __init__(self, state: State, polls: LongPolls, subscribe_key: str | None) -> None:
        self.requests: Counter[str] = Counter()
        self._state = state
        self._polls = polls
        self._key = subscribe_key
        self._routes: Routes[Endpoint | None] = Routes(
            {SUBSCRIBE: ("subscribe", None), **ENDPOINTS, **CONTROLS}
        )

    async def respond(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request, or close its connection."""
        try:
            reply = await self._reply(request)
        except RefusedError as error:
            reply = error.reply
        if reply.dropped and request.transport is not None:
            request.transport.abort()
        return web.Response(
            body=reply.body,
            status=reply.status or 500,
            content_type=reply.content_type,
            headers=reply.headers,
        )

    async def _reply(self, request: web.BaseRequest) -> Reply:
        if len(request.raw_path) > MAX_REQUEST_LINE:
            return html_reply(414, "Request-URI Too Long")
        route, named = self._routes.find(request.method, request.raw_path.partition("?")[0])
        self.requests[route.operation] += 1
        if self._key is not None and named.get("key", self._key) != self._key:
            return service_error(400, "Invalid Subscribe Key")
        call = Call(named, request.query, await request.read() if request.can_read_body else b"")
        asked = _asked(call)
        if route.operation != "control" and (
            refusal := await self._trouble(route.operation, asked, call)
        ):
            return refusal
        if route.endpoint is None:
            return await self._polls.answer(asked, call)
        return route.endpoint(self._state, call)

    async def _trouble(self, operation: str, asked: Subscription, call: Call) -> Reply | None:
        if delay := self._state.faults.delay():
            await asyncio.sleep(delay)
        trouble = self._state.trouble
        return trouble.lasting(operation, asked, call.query.get("auth")) or trouble.passing(
            operation, asked
        )


def _asked(call: Call) -> Subscription:
    """Return the channels and groups a call concerns."""
    channels = call.path.get("channels") or call.path.get("channel", "")
    groups = call.query.get("channel-group", "") or (
        call.text("group") if "group" in call.path else ""
    )
    return Subscription.parse(channels, groups)
