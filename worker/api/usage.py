"""Whether something is used: while somebody uses it, and some time longer."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

IDLE_SECONDS: Final = 60.0
"""How long it lasts without a user. Clients that lose their connections come again sooner."""


class Usage:
    """The users of something that ends some time after the last one has left."""

    def __init__(self, end: Callable[[], None]) -> None:
        self._end = end
        self._users = 0
        self._timer: asyncio.TimerHandle | None = None
        self.is_on = False
        """Whether it is used, or was lately."""

    @contextmanager
    def shared(self) -> Iterator[None]:
        """Use it, as others do."""
        self._stop_timer()
        self._users += 1
        self.is_on = True
        try:
            yield
        finally:
            self._users -= 1
            if not self._users:
                loop = asyncio.get_running_loop()
                self._timer = loop.call_later(IDLE_SECONDS, self.end)

    def end(self) -> None:
        """End it now."""
        self._stop_timer()
        self.is_on = False
        self._end()

    def _stop_timer(self) -> None:
        if self._timer:
            self._timer.cancel()
