"""The TLS server of the tests leaves no connection behind: pytest would find it in another test."""

import asyncio
import gc
import socket
import warnings

import pytest
import trustme

from tests.source.tls_server import tls_context, tls_in_front_of


@pytest.mark.parametrize("steps", range(6))
def test_a_client_that_has_just_gone_is_no_leak(steps: int) -> None:
    """A process may end so few steps of the loop before the server is closed."""
    context = tls_context(trustme.CA(), "127.0.0.1")

    async def come_and_go() -> None:
        async with tls_in_front_of("127.0.0.1:1", context) as port:
            socket.create_connection(("127.0.0.1", port)).close()
            for _ in range(steps):
                await asyncio.sleep(0)

    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always", ResourceWarning)
        asyncio.run(come_and_go())
        gc.collect()

    assert [str(warning.message) for warning in found] == []
