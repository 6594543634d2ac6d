"""The HTTP port of a real worker: a port that is taken, and one that was not asked for."""

import asyncio
import socket
from contextlib import suppress

from tests.end_to_end.processes import Stage, wait_until


async def test_a_port_that_was_asked_for_and_is_taken_ends_the_start(stage: Stage) -> None:
    """Exit 2, with the address; nothing is followed."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        child = stage.start("run", TALLY_HTTP=address)
        assert await child.ended(90) == 2

    assert f"tally: TALLY_HTTP: nobody can listen at {address}" in child.err
    assert "Traceback" not in child.err


async def test_a_default_port_that_is_taken_is_only_said(stage: Stage) -> None:
    """A second worker on one machine starts without the pages, and says so once."""
    taken = socket.socket()
    taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    with suppress(OSError):  # somebody else has it: all the better
        taken.bind(("127.0.0.1", 8080))
        taken.listen()
    with taken:
        child = stage.start("run", TALLY_HTTP=None)
        await wait_until(lambda: bool(child.entries("http_off")), 90, what=lambda: child.err)
        await wait_until(lambda: bool(child.entries("subscription_starts")), 90, what=lambda: child.err)

    (entry,) = child.entries("http_off")
    assert entry["level"] == "warning"
    assert "127.0.0.1:8080" in entry["reason"]
    assert await child.stopped() == 0


async def test_a_free_port_is_found_and_told(stage: Stage) -> None:
    """Port 0, on IPv6 where this machine has it; the entry has where."""
    child = stage.start("run", TALLY_HTTP="[::1]:0" if socket.has_ipv6 else "127.0.0.1:0")
    await wait_until(lambda: bool(child.entries("http_listens")) or not child.is_alive, 90, what=lambda: child.err)
    if not child.is_alive:
        assert "nobody can listen at [::1]:0" in child.err  # has it, but not up
        return
    (entry,) = child.entries("http_listens")
    _, writer = await asyncio.open_connection(entry["host"], entry["port"])
    writer.close()

    assert await child.stopped() == 0
