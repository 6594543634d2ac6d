"""What else may listen where a PubNub, a Redis or a proxy is expected."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from tests.worlds import World

PATCH: Final = """
import time

now = time.time
time.time = lambda: now() + {seconds}
"""


@asynccontextmanager
async def silent_server() -> AsyncIterator[int]:
    """Yield a port that takes connections, and never answers."""
    async with answering(None) as port:
        yield port


@asynccontextmanager
async def answering(reply: bytes | None) -> AsyncIterator[int]:
    """Yield a port that says this to everybody and closes; None: it says nothing."""
    over = asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if reply is None:
            await over.wait()
        else:
            await reader.read(1)
            writer.write(reply)
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        over.set()
        server.close()


@asynccontextmanager
async def old_redis(version: str) -> AsyncIterator[int]:
    """Yield the port of what says that it is a Redis of this version, and knows INFO alone."""
    text = f"redis_version:{version}\r\n".encode()
    info = b"$%d\r\n%b\r\n" % (len(text), text)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while words := await read_command(reader):
            writer.write(info if words[0].upper() == b"INFO" else b"+OK\r\n")
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def read_command(reader: asyncio.StreamReader) -> list[bytes]:
    """Return the words of a command in Redis's protocol; nothing at the end."""
    head = await reader.readline()
    words = []
    for _ in range(int(head[1:] or 0)):
        await reader.readline()
        words.append((await reader.readline()).strip())
    return words


def wrong_clock(world: World, seconds: int) -> dict[str, str]:
    """Return the setting with which Python's clock is so many seconds ahead."""
    folder = world.folder / "patch"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(PATCH.format(seconds=seconds))
    return {"PYTHONPATH": f"{Path.cwd()}:{folder}"}
