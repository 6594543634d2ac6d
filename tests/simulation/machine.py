"""A worker's machine: it can be killed and suspended, and its effects are counted."""

import asyncio
from collections.abc import Callable

Hook = Callable[[str], None]


class Machine:
    """One process. After a kill it has no effect any more."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.is_dead = False
        self.is_suspended = False
        self.parked: list[asyncio.Handle] = []
        self.effects = 0
        self.on_effect: Hook | None = None
        """Called after each command that reached Redis, with its name; it may kill."""

    def check(self) -> None:
        """Go on only if the process lives.

        Raises:
            CancelledError: the process was killed; no answer is needed.
        """
        if self.is_dead:
            raise asyncio.CancelledError

    def count_effect(self, name: str) -> None:
        """Note that a command was done."""
        self.effects += 1
        if self.on_effect and not self.is_dead:
            self.on_effect(name)
