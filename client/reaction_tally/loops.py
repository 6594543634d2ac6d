"""One client for each event loop: connections belong to the loop that opened them."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import Any
from weakref import WeakKeyDictionary

Loop = asyncio.AbstractEventLoop


class LoopClients:
    """Clients of the loops that run.

    A reader at the top of a module is used by one loop after another: each ``asyncio.run`` and
    each ``async_to_sync`` has its own. A loop that ends closes its client.
    """

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make = make
        self._clients: WeakKeyDictionary[Loop, Any] = WeakKeyDictionary()
        self._endings: WeakKeyDictionary[Loop, AsyncGenerator[None]] = WeakKeyDictionary()

    async def get(self) -> Any:
        """Return the client of the running loop."""
        loop = asyncio.get_running_loop()
        client = self._clients.get(loop)
        if client is None:
            client = self._clients[loop] = self._make()
            # A loop that ends closes the generators that began in it.
            ending = self._endings[loop] = self._closed_with(loop, client)
            await anext(ending)
        return client

    async def close(self) -> None:
        """Close the client of the running loop."""
        ending = self._endings.get(asyncio.get_running_loop())
        if ending:
            await ending.aclose()

    async def _closed_with(self, loop: Loop, client: Any) -> AsyncGenerator[None]:
        try:
            yield
        finally:
            self._clients.pop(loop, None)
            self._endings.pop(loop, None)
            await client.aclose()


class OneClient:
    """A client that somebody else made, and closes."""

    def __init__(self, client: Any) -> None:
        self._client = client

    async def get(self) -> Any:
        """Return it."""
        return self._client

    async def close(self) -> None:
        """Leave it open."""
