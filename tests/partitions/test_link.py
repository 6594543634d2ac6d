"""A link does to what goes through it what its way says, for each source by itself."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.partitions.link import HOST, Link, Way

HERE = HOST
THERE = "127.0.1.7"


@asynccontextmanager
async def echoing() -> AsyncIterator[Link]:
    """Yield a link before a server that answers with what it gets."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while part := await reader.read(100):
            writer.write(part)
        writer.close()

    server = await asyncio.start_server(echo, HOST, 0)
    async with server, Link() as link:
        link.lead_to(server.sockets[0].getsockname()[1])
        yield link


async def ask(link: Link, words: bytes = b"hello") -> bytes:
    """Return what comes back on a new connection."""
    reader, writer = await asyncio.open_connection(HOST, link.port)
    try:
        writer.write(words)
        return await reader.readexactly(len(words))
    finally:
        writer.close()


async def test_everything_passes_at_first_and_when_it_comes_late() -> None:
    """Nothing is lost, and nothing is changed."""
    async with echoing() as link:
        assert await ask(link) == b"hello"
        await link.change(Way.SLOW, HERE)
        assert await ask(link) == b"hello"


async def test_what_waits_in_silence_comes_afterwards() -> None:
    """As TCP sends it again: no connection has ended."""
    async with echoing() as link:
        reader, writer = await asyncio.open_connection(HOST, link.port)
        await link.change(Way.SILENT, HERE)
        writer.write(b"hello")
        answer = asyncio.create_task(reader.readexactly(5))
        done, _ = await asyncio.wait([answer], timeout=0.1)
        assert not done

        await link.change(Way.OPEN, HERE)

        assert await answer == b"hello"
        writer.close()


async def test_a_cut_resets_connections_and_refuses_new_ones() -> None:
    """Both end with an error, until the link is open again."""
    async with echoing() as link:
        reader, writer = await asyncio.open_connection(HOST, link.port)
        writer.write(b"hello")
        await reader.readexactly(5)

        await link.change(Way.CUT, HERE)

        with pytest.raises(ConnectionError):
            await reader.readexactly(1)
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await ask(link)
        await link.change(Way.OPEN, HERE)
        assert await ask(link) == b"hello"


async def test_another_source_has_another_way() -> None:
    """So a node can be cut off from the others, and not from workers."""
    async with echoing() as link:
        await link.change(Way.CUT, THERE)

        assert await ask(link) == b"hello"
