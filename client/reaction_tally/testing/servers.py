"""The Redis of a service: a Valkey of the worker's own, or one that runs already."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from redis import Redis
from redis.exceptions import RedisError

from reaction_tally.keys import Keys
from reaction_tally.testing.errors import ServiceFailedError

SOCKET: Final = Path(".tally", "valkey.sock")
STOP_SECONDS: Final = 10.0


@contextmanager
def embedded(folder: Path) -> Iterator[None]:
    """Stop the Valkey of a worker in this folder, if the worker could not."""
    try:
        yield
    finally:
        with suppress(OSError), socket.socket(socket.AF_UNIX) as server:
            server.settimeout(STOP_SECONDS)
            server.connect(str(folder / SOCKET))
            server.sendall(b"SHUTDOWN NOSAVE\r\n")
            server.recv(1)  # nothing comes: it ends


@contextmanager
def borrowed(url: str, namespace: str) -> Iterator[None]:
    """Use a namespace that is empty before, and afterwards.

    Raises:
        ServiceFailedError: it does not answer, or holds tallies.
    """
    with Redis.from_url(url) as redis:
        try:
            is_used = redis.exists(Keys(namespace).meta)
        except RedisError as error:
            raise ServiceFailedError(f"The Redis of redis_url does not answer: {error}") from error
        if is_used:
            raise ServiceFailedError(
                f"This Redis holds tallies in the namespace {namespace!r} already. "
                "Give tally_service another database or namespace: it deletes its tallies. "
                "(A run that was killed leaves them. If they are of tests, delete them.)"
            )
        try:
            yield
        finally:
            # A Redis that is away now must not hide why the block ended.
            with suppress(RedisError):
                for key in redis.scan_iter(f"{namespace}:*", count=1_000):
                    redis.unlink(key)
