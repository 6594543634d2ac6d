"""HTTP: finds the endpoint of a request, and sends its reply."""

import asyncio
from collections import Counter
from typing import Final

from aiohttp import web

from worker.emulator.calls import Call, Routes
from worker.emulator.endpoints import ENDPOINTS, Endpoint
from worker.emulator.longpoll import LongPolls
from worker.emulator.replies import RefusedError, Reply, html_reply, service_error
from worker.emulator.state import State
from worker.emulator.subscription import Subscription

MAX_REQUEST_LINE: Final = 32 * 1024
SUBSCRIBE: Final = ("GET", "/v2/subscribe/{key}/{channels}/0")


class Server:
    """Answers HTTP requests from a state.

    ``subscribe_key`` None accepts any key. All keys share one keyset.
    """

    def __init__(
        self,
        state: State,
        polls: LongPolls,
        subscribe_key: str | None,
    ) -> None:
        self.requests: Counter[str] = Counter()
        self._state = state
        self._polls = polls
        self._key = subscribe_key
        self._routes: Routes[Endpoint | None] = Routes(
            {SUBSCRIBE: ("subscribe", None), **ENDPOINTS}
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
            status=reply.status,
            content_type=reply.content_type,
            headers=reply.headers,
        )

    async def _reply(self, request: web.BaseRequest) -> Reply:
        if len(request.raw_path) > MAX_REQUEST_LINE:
            return html_reply(414, "Request-URI Too Long")
        path = request.raw_path.partition("?")[0]
        route, named = self._routes.find(request.method, path)
        self.requests[route.operation] += 1
        if self._key not in {None, named.get("key", self._key)}:
            return service_error(400, "Invalid Subscribe Key")
        call = Call(named, request.query, await request.read())
        names = _names(call)
        refusal = await self._trouble(route.operation, names, call)
        if refusal:
            return refusal
        if route.endpoint is None:
            return await self._polls.answer(names, call)
        return route.endpoint(self._state, call)

    async def _trouble(
        self,
        operation: str,
        names: Subscription,
        call: Call,
    ) -> Reply | None:
        await asyncio.sleep(self._state.faults.delay())
        trouble = self._state.trouble
        lasting = trouble.lasting(operation, names, call.query.get("auth"))
        return lasting or trouble.passing(operation, names)


def _names(call: Call) -> Subscription:
    """Return the channels and groups of a call."""
    path = call.path
    channels = path.get("channels") or path.get("channel", "")
    if "group" in path:
        return Subscription.parse(channels, call.text("group"))
    return Subscription.parse(channels, call.query.get("channel-group", ""))
