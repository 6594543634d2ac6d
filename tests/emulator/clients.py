"""Clients of the emulator: the unmodified SDK, plain HTTP, or a clock alone."""

import json
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from random import Random
from typing import Any

import aiohttp
import yarl
from pubnub.models.consumer.message_actions import PNMessageAction

from tests.source.scripted import sdk
from worker.emulator import Cursor, State, Subscription

KEY = "sub-c-test"
MESSAGE = "17600000001728660"
ROOM = Subscription(("room",))


def asyncio_sdk(origin: str, uuid: str = "ana") -> AbstractAsyncContextManager[Any]:
    """Open the SDK for asyncio, as its makers ship it."""
    return sdk(origin, subscribe_key=KEY, publish_key="pub-c-test", user_id=uuid)


def reaction(value: str, message: str = MESSAGE) -> Any:
    """Return a reaction for the SDK to add."""
    return PNMessageAction().create(type="reaction", value=value, message_timetoken=message)


@dataclass(frozen=True, slots=True)
class Got:
    """An HTTP answer."""

    status: int
    text: str
    headers: dict[str, str]

    @property
    def document(self) -> Any:
        """The JSON of its body."""
        return json.loads(self.text)

    @property
    def texts(self) -> list[Any]:
        """The payloads of the ordinary messages in a subscribe answer."""
        return [message["d"] for message in self.document["m"]]

    @property
    def cursor(self) -> str:
        """The query parameters of the next poll."""
        return f"tt={self.document['t']['t']}&tr={self.document['t']['r']}"


class Http:
    """A plain client, for everything that the SDK hides."""

    def __init__(self, session: aiohttp.ClientSession, origin: str) -> None:
        self._session = session
        self._origin = f"http://{origin}"

    async def ask(self, method: str, path: str, body: object = None) -> Got:
        """Send one request. A body of bytes is sent as it is, others as JSON."""
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        url = yarl.URL(self._origin + path, encoded=True)
        async with self._session.request(method, url, data=data) as response:
            return Got(response.status, await response.text(), dict(response.headers))

    async def get(self, path: str) -> Got:
        """Send a GET."""
        return await self.ask("GET", path)

    async def poll(self, channels: str = "room", query: str = "tt=0") -> Got:
        """Send one subscribe request, with encoded channels and query."""
        return await self.get(f"/v2/subscribe/{KEY}/{channels}/0?uuid=reader&{query}")


class Clock:
    """A clock that a test advances."""

    def __init__(self) -> None:
        self.seconds = 1_760_000_000.0

    def __call__(self) -> float:
        """Return Unix time in seconds."""
        return self.seconds

    def tick(self, seconds: float = 1.0) -> None:
        """Let time pass."""
        self.seconds += seconds


def keyset(*, seed: int = 1, **faults: float) -> tuple[State, Clock]:
    """Return an emulator without HTTP, and its clock."""
    clock = Clock()
    return State(clock, Random(seed), faults, KEY), clock


def present(state: State, subscription: Subscription = ROOM) -> Cursor:
    """Return the cursor of a handshake."""
    return state.poll(subscription, Cursor(0)).cursor


def follow(
    state: State, clock: Clock, cursor: Cursor, answers: int = 20
) -> list[list[dict[str, Any]]]:
    """Return the messages of the next answers, a tenth of a second apart."""
    received = []
    for _ in range(answers):
        answer = state.poll(ROOM, cursor)
        cursor = answer.cursor
        received.append([json.loads(message) for message in answer.messages])
        clock.tick(0.1)
    return received
