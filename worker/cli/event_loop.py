"""The event loop of a command: a name that nobody answers for does not keep the process."""

import asyncio
import socket
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

Settle = Callable[[], None]
"""Gives a future its result or its error."""


class CommandLoop(asyncio.SelectorEventLoop):
    """Looks up each name in a thread that may be left behind.

    A lookup cannot be cancelled, and may take minutes.
    asyncio's own threads are waited for when the loop closes, and when the process ends.
    """

    async def getaddrinfo(self, *arguments: Any, **options: Any) -> Any:
        """Look up a host, as ``socket.getaddrinfo`` does."""
        found = self.create_future()
        look_up = partial(socket.getaddrinfo, *arguments, **options)
        thread = threading.Thread(
            target=self._look_up,
            args=(look_up, found),
            name="lookup",
            daemon=True,
        )
        thread.start()
        return await found

    def _look_up(
        self,
        look_up: Callable[[], Any],
        found: "asyncio.Future[Any]",
    ) -> None:
        settle: Settle
        try:
            settle = partial(_settle, found, found.set_result, look_up())
        except Exception as error:
            settle = partial(_settle, found, found.set_exception, error)
        try:
            self.call_soon_threadsafe(settle)
        except RuntimeError:
            return  # the loop is closed: nobody waits any more


def _settle(
    found: "asyncio.Future[Any]",
    give: Callable[[Any], None],
    value: object,
) -> None:
    if not found.done():
        give(value)
