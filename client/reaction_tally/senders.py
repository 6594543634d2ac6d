"""Carries out operations with a client of redis-py: in a thread, and in an event loop."""

import asyncio
from collections.abc import AsyncGenerator, Generator, Sequence
from functools import partial
from typing import Any, TypeVar

from reaction_tally import nodes
from reaction_tally.changes import Steps
from reaction_tally.clients import GivenClient, OwnClient
from reaction_tally.errors import RedisUnavailableError
from reaction_tally.hints import AsyncHints, Hints, followed, followed_in_loop
from reaction_tally.loops import AsyncGivenClient, LoopClients
from reaction_tally.operations import Group, GroupedOperation, Request
from reaction_tally.replies import REDIS_ERRORS, UNREADABLE, translated, unreadable
from reaction_tally.routes import by_slot
from reaction_tally.values import Change, Reset

Result = TypeVar("Result")


class Sender:
    """Sends the commands of operations, in threads."""

    def __init__(self, client: GivenClient | OwnClient, where: str) -> None:
        """``where`` names the server for people."""
        self._client = client
        self.where = where

    def run(self, operation: GroupedOperation[Result]) -> Result:
        """Run an operation to its result."""
        try:
            request = next(operation)
            while True:
                request = operation.send(self.send(request))
        except StopIteration as end:
            result: Result = end.value
            return result
        except UNREADABLE as error:
            raise unreadable(error) from error

    def follow(self, begin: GroupedOperation[Steps], topic: str) -> Generator[Change | Reset]:
        """Begin at once; yield what a follower yields."""
        hints = Hints(self._client.get, topic)
        return followed(self.run(begin), self.send, hints)

    def send(self, request: Request | Group) -> Sequence[Any]:
        """Send commands; return the replies."""
        try:
            redis = self._client.get()
            if isinstance(request, Group):
                return groups(redis, request)
            if nodes.is_cluster(redis):
                return nodes.send(redis, request)
            return self._send_to_one(redis, request)
        except REDIS_ERRORS as error:
            raise translated(error) from error

    def _send_to_one(self, redis: Any, request: Request) -> Sequence[Any]:
        pipe = redis.pipeline(transaction=request.is_atomic)
        for command in request.commands:
            pipe.execute_command(*command)
        replies: Sequence[Any] = pipe.execute(raise_on_error=False)
        return replies

    def close(self) -> None:
        """Close the connections, if they are its own."""
        self._client.close()


class AsyncSender:
    """Sends the commands of operations, in event loops."""

    def __init__(
        self,
        clients: LoopClients | AsyncGivenClient,
        where: str,
        seconds: float | None = None,
    ) -> None:
        """An answer may take so many seconds, if the clients have no time of their own."""
        self._clients = clients
        self._seconds = seconds
        self.where = where

    async def run(self, operation: GroupedOperation[Result]) -> Result:
        """Run an operation to its result."""
        try:
            request = next(operation)
            while True:
                replies = await self.send(request)
                request = operation.send(replies)
        except StopIteration as end:
            result: Result = end.value
            return result
        except UNREADABLE as error:
            raise unreadable(error) from error

    def follow(self, begin: GroupedOperation[Steps], topic: str) -> AsyncGenerator[Change | Reset]:
        """Begin when the first change is asked for; yield what a follower yields."""
        hints = AsyncHints(self._clients.get, topic, self._seconds)
        return followed_in_loop(partial(self.run, begin), self.send, hints)

    async def send(self, request: Request | Group) -> Sequence[Any]:
        """Send commands; their time begins when a connection is free."""
        if isinstance(request, Group):
            return await self._group(request)
        async with self._clients.borrow() as redis:
            try:
                async with asyncio.timeout(self._seconds):
                    return await self._send(redis, request)
            except TimeoutError as error:
                if nodes.is_cluster(redis):
                    await nodes.refresh_slot_map(redis)
                reason = f"Redis does not answer within {self._seconds} s."
                raise RedisUnavailableError(reason) from error
            except REDIS_ERRORS as error:
                raise translated(error) from error

    async def _group(self, group: Group) -> Sequence[Any]:
        redis = await self._clients.get()
        if len(group.keys) <= group.most:
            return groups(redis, group)
        # Very many keys must not hold up the loop.
        return await asyncio.to_thread(groups, redis, group)

    async def _send(self, redis: Any, request: Request) -> Sequence[Any]:
        if nodes.is_cluster(redis):
            return await nodes.send_in_loop(redis, request)
        pipe = redis.pipeline(transaction=request.is_atomic)
        for command in request.commands:
            pipe.execute_command(*command)
        replies: Sequence[Any] = await pipe.execute(raise_on_error=False)
        return replies

    async def close(self) -> None:
        """Close the connections of the running loop, if they are its own."""
        await self._clients.close()


def groups(redis: Any, group: Group) -> Sequence[Any]:
    """Return which keys one command may name."""
    if nodes.is_cluster(redis):
        return by_slot(group.keys, group.most)
    starts = range(0, len(group.keys), group.most)
    return [[group.keys[start : start + group.most]] for start in starts]
