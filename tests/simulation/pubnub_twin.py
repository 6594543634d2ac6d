"""The worker's client of PubNub, on the emulator's state in memory, without HTTP."""

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from random import Random
from typing import Any, Final

from multidict import CIMultiDict

from tests.simulation.loop import running
from tests.simulation.machine import Machine
from tests.simulation.notes import Notes
from tests.simulation.redis_twin import NETWORK
from worker.domain.position import Cursor, Timetoken
from worker.emulator import State
from worker.emulator.calls import Call
from worker.emulator.endpoints import change_group, list_actions, report_time
from worker.emulator.longpoll import LongPolls
from worker.emulator.replies import Reply
from worker.emulator.subscription import Subscription
from worker.errors import PubNubError
from worker.source.answers import read_answer, read_channels, read_page, read_time
from worker.source.client import Answer, Client, Contact, Page, Reader, Result
from worker.source.failures import failure
from worker.source.transport import Response

IDLE_SECONDS: Final = 280.0
NOTHING: Final = Reply(200, b'{"status":200,"data":[]}')
ENDPOINTS: Final = {"actions": list_actions, "time": report_time, "groups": change_group}


class PubNub:
    """The service: a state, and how long requests take."""

    def __init__(
        self, state: State, random: Random, notes: Notes, lies: Callable[[], None]
    ) -> None:
        """``lies`` is called when a wrong origin answers."""
        self.state = state
        self.requests = 0
        self.lists = 0
        self.slowness = 0.0
        """How often an answer is held for long."""
        self.notes = notes
        self.is_another = False
        """Whether the origin is a wrong one: it lists nothing of anything."""
        self._polls = LongPolls(state, IDLE_SECONDS)
        self._random = random
        self._lies = lies

    def open(self) -> None:
        """Begin."""
        self._polls.open()

    def delay(self) -> float:
        """Return how long one way takes, in seconds."""
        draw = self._random.random()
        if draw < self.slowness:
            return 0.5 + 90 * self._random.random() ** 3
        return 0.005 + 0.1 * draw

    def reply(
        self, operation: str, asked: Subscription, call: Call
    ) -> Reply | Coroutine[Any, Any, Reply]:
        """Answer one request, or say how it is waited for."""
        self.requests += 1
        self.lists += operation == "actions"
        trouble = self.state.trouble
        if refusal := trouble.lasting(operation, asked) or trouble.passing(operation, asked):
            return refusal
        if operation == "actions" and self.is_another:
            self._lies()
            return NOTHING
        if operation == "subscribe":
            return self._polls.answer(asked, call)
        return ENDPOINTS[operation](self.state, call)


class Request:
    """One request and its answer; both are on their way also while the machine sleeps."""

    def __init__(self, service: PubNub, operation: str, asked: Subscription, call: Call) -> None:
        self._service = service
        self._what = operation, asked, call
        self._loop = running()
        self._poll: asyncio.Task[None] | None = None
        self.answered: asyncio.Future[Reply] = self._loop.create_future()
        self._loop.call_later(service.delay(), self._arrive, context=NETWORK)

    def _arrive(self) -> None:
        if self.answered.done():
            return
        reply = self._service.reply(*self._what)
        if isinstance(reply, Reply):
            self._loop.call_later(self._service.delay(), self._answer, reply, context=NETWORK)
        else:
            self._poll = self._loop.create_task(self._wait(reply), context=NETWORK.copy())

    async def _wait(self, poll: Coroutine[Any, Any, Reply]) -> None:
        reply = await poll
        self._loop.call_later(self._service.delay(), self._answer, reply, context=NETWORK)

    def _answer(self, reply: Reply) -> None:
        if not self.answered.done():
            self.answered.set_result(reply)

    def hang_up(self) -> None:
        """Wait no longer."""
        if self._poll:
            self._poll.cancel()


class ClientTwin(Client):
    """The real client, but for the way there and back."""

    def __init__(self, pubnub: PubNub, machine: Machine) -> None:
        self.contact = Contact()
        self._service = pubnub
        self._machine = machine

    async def close(self) -> None:
        """Do nothing."""

    async def subscribe(
        self, channels: Sequence[str], groups: Sequence[str], cursor: Cursor
    ) -> Answer:
        """Poll."""
        assert channels or groups
        asked = Subscription(tuple(channels), tuple(groups))
        query = {"tt": cursor.timetoken} | ({"tr": str(cursor.region)} if cursor.region else {})
        return await self._request("subscribe", asked, {}, query, read_answer)

    async def message_actions(
        self,
        channel: str,
        *,
        start: Timetoken | None = None,
        end: Timetoken | None = None,
        limit: int = 100,
    ) -> Page:
        """Return a page of the list."""
        query = (
            {"limit": str(limit)}
            | ({"start": start} if start else {})
            | ({"end": end} if end else {})
        )
        path = {"key": "demo", "channel": channel}
        asked, notes = Subscription((channel,)), self._service.notes
        notes.asks(self._machine, channel)
        reply = None
        try:
            reply = await self._reply("actions", asked, path, query)
        finally:
            notes.answered(self._machine, channel, reply)
        return self._read("message actions", reply, read_page)

    async def group_channels(self, group: str) -> tuple[str, ...]:
        """Return who is in a group."""
        asked = Subscription((), (group,))
        return await self._request("groups", asked, {"group": group}, {}, read_channels)

    async def time(self) -> Timetoken:
        """Return PubNub's clock."""
        return await self._request("time", Subscription(), {}, {}, read_time)

    async def _request(
        self,
        operation: str,
        asked: Subscription,
        path: Mapping[str, str],
        query: Mapping[str, str],
        read: Reader[Result],
    ) -> Result:
        """Send one request; return what its answer says."""
        return self._read(operation, await self._reply(operation, asked, path, query), read)

    async def _reply(
        self, operation: str, asked: Subscription, path: Mapping[str, str], query: Mapping[str, str]
    ) -> Reply:
        """Send one request, and wait for its answer."""
        self._machine.check()
        request = Request(self._service, operation, asked, Call(path, query))
        try:
            reply = await request.answered
        finally:
            request.hang_up()
        self._machine.check()
        return reply

    def _read(self, asked: str, reply: Reply, read: Reader[Result]) -> Result:
        if reply.dropped:
            raise PubNubError(f"PubNub, {asked}: the connection broke before the answer was whole.")
        if reply.status == 200:
            with suppress(ValueError):
                result = read(asked, reply.body)
                self.contact.has_answered = True
                return result
        response = Response(reply.status, CIMultiDict(reply.headers), reply.body)
        raise failure(asked, response, ())
