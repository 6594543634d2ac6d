"""What a worker's process runs on: it can be killed, suspended, and counted."""

import asyncio
from collections.abc import Callable

Hook = Callable[[str], None]


class Machine:
    """One process. After a kill nothing of it has an effect any more."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.is_dead = False
        self.is_suspended = False
        self.parked: list[asyncio.Handle] = []
        self.effects = 0
        self.on_effect: Hook | None = None
        """Called after each command that reached Redis, with its name; it may kill."""

    def check(self) -> None:
        """Go on only if alive.

        Raises:
            CancelledError: the process was killed; nobody is left to answer to.
        """
        if self.is_dead:
            raise asyncio.CancelledError

    def count_effect(self, name: str) -> None:
        """Note that a command was done."""
        self.effects += 1
        if self.on_effect and not self.is_dead:
            self.on_effect(name)
