"""A real server for tests: it can be killed, revived, put back to an older copy, failed over."""

import asyncio
import atexit
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, Self

from worker.store.embedded import find_binary

LOG: Final = "appendonlydir"
"""The folder of the append-only file, Redis's own default."""
START_SECONDS: Final = 60
STOP_SECONDS: Final = 30

SERVER: Final = "TEST_SERVER"
"""A variable: the program that takes the embedded Valkey's place in tests."""

_kept: Final[list[socket.socket]] = []


def free_port(wanted: int = 0) -> int:
    """Return a loopback port on which nothing listens, reserved while this process lives.

    A socket stays bound to the port, without listening. On Linux, other processes that ask for
    any port do not get this one; a server that asks for this one, with SO_REUSEADDR, does.
    Elsewhere the port is not reserved.

    Raises:
        OSError: exactly this port is ``wanted``, and it is in use.
    """
    kept = socket.socket()
    try:
        kept.bind(("127.0.0.1", wanted))
    except OSError:
        kept.close()
        raise
    # After the bind: set before, it would allow a port that another test reserves in the same way.
    kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    port = int(kept.getsockname()[1])
    if sys.platform == "linux":
        _kept.append(kept)
    else:
        kept.close()
    return port


def server_program() -> Path:
    """Return the server that tests start: the embedded Valkey, or what TEST_SERVER names."""
    named = os.environ.get(SERVER)
    return Path(named) if named else find_binary()


class ServerProcess:
    """A server of any make on loopback; it keeps its port across starts, and has a log file."""

    def __init__(self, command: Sequence[str | Path], folder: Path) -> None:
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}"
        self._command = [*command, "--port", str(self.port), "--bind", "127.0.0.1", "--dir", folder]
        self._log = folder / "server.log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, *options: str) -> None:
        """Start the server, this once with these options; return when it has read its data."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [*self._command, *options], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        atexit.register(self.kill)
        deadline = time.monotonic() + START_SECONDS
        while self._process.poll() is None and time.monotonic() < deadline:
            if self._answers():
                return
            time.sleep(0.01)
        self.kill()
        raise RuntimeError(f"the server does not start: {self.log()}")

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=START_SECONDS) as line:
                line.sendall(b"PING\r\n")
                # It answers -LOADING while it loads, -NOAUTH where it needs a password.
                return line.recv(64).startswith((b"+PONG", b"-NOAUTH"))
        except OSError:
            return False

    def log(self) -> str:
        """Return the text of the server's log."""
        return self._log.read_text(encoding="utf-8", errors="replace")

    @property
    def is_up(self) -> bool:
        """Whether the process runs; one that is paused runs."""
        return self._process is not None and self._process.poll() is None

    def pause(self) -> None:
        """Stop the process's clock: connections stay open, and nothing answers."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: int) -> None:
        assert self._process
        self._process.send_signal(number)

    def end(self) -> None:
        """End the server as an operator does."""
        if self._process:
            self._process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(STOP_SECONDS)
        self.kill()

    def kill(self) -> None:
        """End the server as a crash does; no effect if it has ended."""
        atexit.unregister(self.kill)
        process, self._process = self._process, None
        if process:
            process.kill()
            process.wait()


class RedisServer:
    """One server on loopback; its data is gone when it stops, unless a folder is given."""

    def __init__(self, folder: Path | None = None, **config: str) -> None:
        self._temporary = None if folder else tempfile.mkdtemp(prefix="valkey-")
        self._folder = Path(folder or self._temporary or "")
        self._folder.mkdir(parents=True, exist_ok=True)
        options = {"save": "", "appendonly": "no"} | config
        words = [word for name, value in options.items() for word in (f"--{name}", value)]
        self._server = ServerProcess([server_program(), *words], self._folder)
        self._server.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def port(self) -> int:
        """The port of the server."""
        return self._server.port

    @property
    def url(self) -> str:
        """The address for clients."""
        return self._server.url

    async def restart(self) -> None:
        """End it as an operator does, and start it again; an option must keep its data."""
        await asyncio.to_thread(self._server.end)
        await asyncio.to_thread(self._server.start)

    def stop(self) -> None:
        """End the server."""
        self._server.end()
        if self._temporary:
            shutil.rmtree(self._temporary, ignore_errors=True)


class MortalServer(RedisServer):
    """A server that comes back on its port, with all it acknowledged or with an older copy."""

    def __init__(self, folder: Path) -> None:
        # The append-only file is never rewritten, so it can be copied while it grows.
        super().__init__(
            folder,
            appendonly="yes",
            appendfsync="always",
            appenddirname=LOG,
            **{"auto-aof-rewrite-percentage": "0"},
        )
        self.is_up = True

    async def kill(self) -> None:
        """End it as a crash does."""
        self.is_up = False
        await asyncio.to_thread(self._server.kill)

    async def end(self) -> None:
        """End it as an operator does."""
        self.is_up = False
        await asyncio.to_thread(self._server.end)

    async def revive(self, copy: Path | None = None) -> None:
        """Start it again, with the data of a copy if one is given."""
        if copy:
            shutil.rmtree(self._folder / LOG)
            shutil.copytree(copy, self._folder / LOG)
        await asyncio.to_thread(self._server.start)
        self.is_up = True

    def copy(self, to: Path) -> Path:
        """Copy all it has acknowledged; an unfinished write is cut off when the copy is used."""
        shutil.rmtree(to, ignore_errors=True)
        return shutil.copytree(self._folder / LOG, to)

    def destroy(self) -> None:
        """End it for good."""
        self._server.kill()


class Forwarder:
    """An address in front of servers, as a failover has one: it can lead to another server.

    With ``tls`` it ends TLS, because the embedded Valkey is built without.
    """

    def __init__(self, port: int, tls: ssl.SSLContext | None = None) -> None:
        self._port = port
        self._tls = tls
        self._through: set[asyncio.Task[None]] = set()
        self._requests = asyncio.Event()
        self._requests.set()
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._lead, "127.0.0.1", 0, ssl=self._tls)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server
        self._server.close()
        await self._cut()

    @property
    def url(self) -> str:
        """The address for clients."""
        assert self._server
        scheme = "rediss" if self._tls else "redis"
        return f"{scheme}://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def switch(self, port: int) -> None:
        """Cut every connection; new ones lead to that port."""
        self.lead_to(port)
        await self._cut()

    def lead_to(self, port: int) -> None:
        """Lead new connections to that port; open ones stay."""
        self._port = port

    def view(self) -> Callable[[bytes], bytes]:
        """Return what a new connection makes of an answer: nothing else."""
        return bytes

    def hold_requests(self) -> None:
        """Keep requests back, so that they are not answered.

        What the server has done already is answered: a test that saw it may rely on that.
        """
        self._requests.clear()

    def let_requests_through(self) -> None:
        """Pass on the requests that were kept back, and all later ones."""
        self._requests.set()

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
            ways = [
                asyncio.create_task(_carry(reader, outward, gate=self._requests)),
                asyncio.create_task(_carry(inward, writer, view=self.view())),
            ]
            try:
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for way in ways:
                    way.cancel()
                outward.transport.abort()
        except (OSError, asyncio.CancelledError):
            pass  # one side has gone, or was cut off on purpose
        finally:
            writer.transport.abort()
            self._through.discard(task)


async def _carry(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    gate: asyncio.Event | None = None,
    view: Callable[[bytes], bytes] = bytes,
) -> None:
    with suppress(OSError):
        while part := await reader.read(65536):
            if gate:
                await gate.wait()
            writer.write(view(part))
            await writer.drain()
