"""What all clients of the board receive: one document, and what changes of it."""

import asyncio
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from msgspec.json import encode

from worker.web.streams import event

Send = Callable[[bytes], None]
"""Sends one event to one client, soon."""


class Frames:
    """The newest document. Each frame is encoded once, for any number of clients."""

    def __init__(self) -> None:
        self._run = secrets.token_hex(4)
        self._sequence = 0
        self._document: Mapping[str, Any] = {}
        self._snapshot: bytes | None = None
        self._clients: list[Send] = []
        self._has_begun = asyncio.Event()

    @property
    def clients(self) -> int:
        """How many streams receive frames."""
        return len(self._clients)

    def publish(self, document: Mapping[str, Any], update: Mapping[str, Any]) -> None:
        """Publish a document, and what is new in it."""
        self._sequence += 1
        self._document = document
        self._snapshot = None
        if self._has_begun.is_set():
            frame = _event("update", self._encoded(update))
        else:
            frame = _event("snapshot", self.snapshot())
        self._has_begun.set()
        for send in self._clients:
            send(frame)

    def forget(self) -> None:
        """Forget the document: it is too old for whoever comes next."""
        self._has_begun.clear()
        self._document = {}
        self._snapshot = None

    async def first(self) -> None:
        """Wait until there is a document."""
        await self._has_begun.wait()

    def snapshot(self) -> bytes:
        """Return the whole document."""
        if self._snapshot is None:
            self._snapshot = self._encoded(self._document)
        return self._snapshot

    @contextmanager
    def joined(self, send: Send) -> Iterator[None]:
        """Let a client receive the document, and every update after it."""
        if self._has_begun.is_set():
            send(_event("snapshot", self.snapshot()))
        self._clients.append(send)
        try:
            yield
        finally:
            self._clients.remove(send)

    def _encoded(self, content: Mapping[str, Any]) -> bytes:
        # Another run, after a restart, counts from the beginning.
        header = {"run": self._run, "sequence": self._sequence}
        return encode(header | dict(content))


def _event(name: str, data: bytes) -> bytes:
    return event(data.decode(), name=name)
