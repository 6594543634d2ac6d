"""A synchronous reader in tests that run in an event loop."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import closing
from typing import Any

from reaction_tally import TallyReader


class InThread:
    """A synchronous reader whose reads are awaited: each runs in a thread."""

    def __init__(self, reader: TallyReader) -> None:
        self.reader = reader

    async def changes(self, *args: Any, **options: Any) -> AsyncGenerator[Any]:
        """Yield the changes; each is waited for in a thread."""
        changes = await asyncio.to_thread(self.reader.changes, *args, **options)
        with closing(changes):
            while True:
                yield await asyncio.to_thread(changes.__next__)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        """Return a read of this name."""
        return lambda *args, **options: asyncio.to_thread(
            getattr(self.reader, name), *args, **options
        )
