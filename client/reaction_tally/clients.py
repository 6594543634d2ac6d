"""Clients of redis-py for threads: one that was given, or one that is made at the first use."""

from collections.abc import Callable
from threading import Lock
from typing import Any


class GivenClient:
    """A client that somebody else made, and closes."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def get(self) -> Any:
        """Return it."""
        return self._client

    def close(self) -> None:
        """Leave it open."""


class OwnClient:
    """A client that is made at the first use: redis-py asks a cluster when it makes one."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make = make
        self._client: Any = None
        self._turn = Lock()

    def get(self) -> Any:
        """Return it."""
        if self._client is None:
            with self._turn:
                self._client = self._client or self._make()
        return self._client

    def close(self) -> None:
        """Close its connections."""
        if self._client is not None:
            self._client.close()
