"""One client for each event loop: connections belong to the loop that opened them."""

import asyncio
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

Loop = asyncio.AbstractEventLoop


@dataclass(slots=True)
class Opened:
    """A client of one loop."""

    client: Any
    slots: asyncio.Semaphore
    """One for each connection: who waits for one is not late."""


class LoopClients:
    """Clients of the loops that run.

    A reader at the top of a module is used by one loop after another: each ``asyncio.run`` and
    each ``async_to_sync`` has its own. A loop that ends closes its client.
    """

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make = make
        self._opened: dict[Loop, Opened] = {}
        self._endings: dict[Loop, AsyncGenerator[None]] = {}

    async def get(self) -> Any:
        """Return the client of the running loop."""
        opened = await self._open()
        return opened.client

    @asynccontextmanager
    async def borrow(self) -> AsyncIterator[Any]:
        """Wait for one of the connections; yield the client of the running loop."""
        opened = await self._open()
        async with opened.slots:
            yield opened.client

    async def close(self) -> None:
        """Close the client of the running loop."""
        ending = self._endings.get(asyncio.get_running_loop())
        if ending:
            await ending.aclose()

    async def _open(self) -> Opened:
        loop = asyncio.get_running_loop()
        opened = self._opened.get(loop)
        if opened is None:
            self._drop_closed_loops()
            opened = self._opened[loop] = opened_of(self._make())
            # A loop that ends closes the generators that began in it.
            ending = self._endings[loop] = self._closed_with(loop, opened.client)
            await anext(ending)
        return opened

    async def _closed_with(self, loop: Loop, client: Any) -> AsyncGenerator[None]:
        try:
            yield
        finally:
            self._opened.pop(loop, None)
            self._endings.pop(loop, None)
            await client.aclose()

    def _drop_closed_loops(self) -> None:
        """Forget the clients of loops that were closed without ending their generators."""
        for loop in list(self._opened):
            if loop.is_closed():
                opened = self._opened.pop(loop)
                del self._endings[loop]
                hang_up(opened.client)


class AsyncGivenClient:
    """A client that somebody else made, and closes."""

    def __init__(self, client: Any) -> None:
        self._opened = opened_of(client)

    async def get(self) -> Any:
        """Return it."""
        return self._opened.client

    @asynccontextmanager
    async def borrow(self) -> AsyncIterator[Any]:
        """Wait for one of its connections; yield it."""
        async with self._opened.slots:
            yield self._opened.client

    async def close(self) -> None:
        """Leave it open."""


def opened_of(client: Any) -> Opened:
    """Return a client with a slot for each of its connections."""
    pool = getattr(client, "connection_pool", None)
    # In a cluster so many connections lead to each node.
    most = pool.max_connections if pool else client.connection_kwargs["max_connections"]
    return Opened(client, asyncio.Semaphore(most))


def hang_up(client: Any) -> None:
    """End the connections of a client whose loop is closed: it can close nothing itself."""
    for connection in _idle_connections(client):
        with suppress(OSError, AttributeError):
            line = connection._writer.get_extra_info("socket")  # noqa: SLF001 - as above
            line.shutdown(socket.SHUT_RDWR)


def _idle_connections(client: Any) -> list[Any]:
    pool = getattr(client, "connection_pool", None)
    if pool:
        return list(pool._available_connections)  # noqa: SLF001 - redis-py has no other way
    nodes = client.get_nodes()
    return [connection for node in nodes for connection in node._free]  # noqa: SLF001 - as above
