"""Carries out the steps of a follower: in a thread, and in an event loop."""

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Iterator, Sequence
from contextlib import AsyncExitStack, ExitStack, contextmanager
from typing import Any, Final

from redis import ConnectionPool, Redis
from redis.asyncio import ConnectionPool as AsyncPool
from redis.asyncio import Redis as AsyncRedis

from reaction_tally.changes import Listen, Pause, Step, Steps, Subscribe, advance
from reaction_tally.errors import TallyReadError
from reaction_tally.following import Item
from reaction_tally.nodes import HintServers
from reaction_tally.operations import Group, Request
from reaction_tally.replies import REDIS_ERRORS, UNREADABLE, translated, unreadable
from reaction_tally.values import Change, Reset

MESSAGES: Final = 1_000
"""Messages that are received at once."""
Replies = Sequence[Any]
Send = Callable[[Request | Group], Replies]
AsyncSend = Callable[[Request | Group], Awaitable[Replies]]


class Hints:
    """A subscription to hints, on a connection of its own."""

    def __init__(self, get_client: Callable[[], Any], topic: str) -> None:
        """The connections of the client are left to those who read."""
        self._get_client = get_client
        self._topic = topic
        self._servers = HintServers()
        self._opened = ExitStack()
        self._subscription: Any = None

    def subscribe(self, *, is_new: bool) -> None:
        """Subscribe; the answer will be a message."""
        with redis_errors():
            if is_new:
                self._renew()
            self._subscription.subscribe(self._topic)

    def listen(self, seconds: float) -> list[Any]:
        """Return the messages that are there; wait so long for the first one."""
        messages: list[Any] = []
        with redis_errors():
            message = self._subscription.get_message(timeout=seconds)
            while message:
                messages.append(message)
                if len(messages) == MESSAGES:
                    break
                message = self._subscription.get_message(timeout=0)
        return messages

    def _renew(self) -> None:
        self.close()
        server = self._servers.next(self._get_client())
        own_pool = ConnectionPool(server.connection_class, **server.connection_kwargs)
        client = self._opened.enter_context(Redis.from_pool(own_pool))
        self._subscription = client.pubsub()
        self._opened.callback(self._subscription.close)

    def close(self) -> None:
        """Close the connection."""
        self._opened.close()


class AsyncHints:
    """The same, in an event loop."""

    def __init__(
        self,
        get_client: Callable[[], Awaitable[Any]],
        topic: str,
        seconds: float | None,
    ) -> None:
        """It may take so many seconds to connect, if the client has no time of its own."""
        self._get_client = get_client
        self._topic = topic
        self._seconds = seconds
        self._servers = HintServers()
        self._opened = AsyncExitStack()
        self._subscription: Any = None

    async def subscribe(self, *, is_new: bool) -> None:
        """Subscribe; the answer will be a message."""
        with redis_errors():
            if is_new:
                await self._renew()
            async with asyncio.timeout(self._seconds):
                await self._subscription.subscribe(self._topic)

    async def listen(self, seconds: float) -> list[Any]:
        """Return the messages that are there; wait so long for the first one."""
        messages: list[Any] = []
        # A task that was cancelled ends here. A timeout of zero seconds would swallow that.
        await asyncio.sleep(0)
        with redis_errors():
            message = await self._subscription.get_message(timeout=seconds)
            while message:
                messages.append(message)
                if len(messages) == MESSAGES:
                    break
                message = await self._subscription.get_message(timeout=0)
        return messages

    async def _renew(self) -> None:
        await self.close()
        server = await self._servers.next_in_loop(await self._get_client())
        own_pool = AsyncPool(server.connection_class, **server.connection_kwargs)
        client = await self._opened.enter_async_context(AsyncRedis.from_pool(own_pool))
        self._subscription = client.pubsub()
        self._opened.push_async_callback(self._subscription.aclose)

    async def close(self) -> None:
        """Close the connection."""
        await self._opened.aclose()


def followed(
    steps: Steps,
    send: Send,
    hints: Hints,
) -> Generator[Item]:
    """Carry out the steps of a follower; yield what it yields.

    Raises:
        TallyReadError: what the follower raises.
    """
    answer: Any = None
    try:
        while True:
            step = advance(steps, answer)
            answer = None
            if isinstance(step, Change | Reset):
                yield step
            else:
                answer = _carry_out(step, send, hints)
    finally:
        hints.close()


def _carry_out(
    step: Step,
    send: Send,
    hints: Hints,
) -> Any:
    """Return the answer to a step; an error is an answer, too."""
    try:
        match step:
            case Request() | Group():
                return send(step)
            case Subscribe():
                hints.subscribe(is_new=step.is_new)
            case Listen():
                return hints.listen(step.seconds)
            case Pause():
                time.sleep(step.seconds)
    except TallyReadError as error:
        return error
    return None


async def followed_in_loop(
    begin: Callable[[], Awaitable[Steps]],
    send: AsyncSend,
    hints: AsyncHints,
) -> AsyncGenerator[Item]:
    """Do the same in an event loop; ``begin`` returns the steps."""
    answer: Any = None
    try:
        steps = await begin()
        while True:
            step = advance(steps, answer)
            answer = None
            if isinstance(step, Change | Reset):
                yield step
            else:
                answer = await _carry_out_in_loop(step, send, hints)
    finally:
        await hints.close()


async def _carry_out_in_loop(
    step: Step,
    send: AsyncSend,
    hints: AsyncHints,
) -> Any:
    try:
        match step:
            case Request() | Group():
                return await send(step)
            case Subscribe():
                await hints.subscribe(is_new=step.is_new)
            case Listen():
                return await hints.listen(step.seconds)
            case Pause():
                await asyncio.sleep(step.seconds)
    except TallyReadError as error:
        return error
    return None


@contextmanager
def redis_errors() -> Iterator[None]:
    """Translate errors of redis-py."""
    try:
        yield
    except REDIS_ERRORS as error:
        raise translated(error) from error
    except UNREADABLE as error:
        raise unreadable(error) from error
