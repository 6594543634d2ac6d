"""The port of ``TALLY_HTTP`` where nothing is set, taken by another program."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from socket import SO_REUSEADDR, SOL_SOCKET, socket

from tests.waiting import wait_until


@asynccontextmanager
async def default_port_taken() -> AsyncIterator[None]:
    """Let another program have the default port, here or somewhere else on this machine."""
    with socket() as taken:
        taken.setsockopt(SOL_SOCKET, SO_REUSEADDR, 1)

        def is_ours() -> bool:
            with suppress(OSError):
                taken.bind(("127.0.0.1", 8080))
                taken.listen()
                return True
            return False

        # Somebody else may have it, and not just for a moment: all the better.
        with suppress(AssertionError):
            await wait_until(is_ours, 5)
        yield
