"""The folder of the embedded Valkey: its files, its locks, and which server is its own. Standard library only.

What makes the embedded Valkey safe is three kernel locks (flock), which die with their holder, however it dies:

* ``users.lock``: every user holds it shared for its life; whoever gets it alone knows that no user is left.
* ``keeper.lock``: the one keeper of the folder holds it.
* ``server.lock``: the server itself inherits it, so a second server on the folder cannot be, keeper or no keeper.

The ``address`` file only says where to ask: a server is believed to be the folder's when it says so itself.
"""

import contextlib
import json
import os
import re
import socket
import sys
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

if sys.platform != "win32":  # where the module can be imported, to say that it cannot be used
    import fcntl

HOST = "127.0.0.1"
PORTS = range(20_000, 30_000)  # below the ports that systems hand out to outgoing connections


@dataclass(frozen=True)
class Files:
    """The names inside the folder. ``folder`` is absolute."""

    folder: Path

    @property
    def users_lock(self) -> Path:
        """Held shared by every user."""
        return self.folder / "users.lock"

    @property
    def keeper_lock(self) -> Path:
        """Held by the keeper."""
        return self.folder / "keeper.lock"

    @property
    def server_lock(self) -> Path:
        """Held by the server, which knows nothing of it."""
        return self.folder / "server.lock"

    @property
    def address(self) -> Path:
        """JSON: the server's port, and its pid once it answered. There until no user is left."""
        return self.folder / "address"

    @property
    def log(self) -> Path:
        """What the keeper and the server say."""
        return self.folder / "valkey.log"

    def port(self) -> int | None:
        """Give the port of the address file; None if there is no such file, or no sense in it."""
        try:
            return int(json.loads(self.address.read_bytes())["port"])
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def publish(self, port: int, pid: int | None) -> None:
        """Write the address file, whole or not at all."""
        draft = self.address.with_suffix(".new")
        draft.write_text(json.dumps({"port": port, "pid": pid}) + "\n")
        draft.replace(self.address)


def open_lock(path: Path) -> int:
    """Open a lock file, making it if need be, for this process only: children do not inherit it."""
    return os.open(path, os.O_RDWR | os.O_CREAT, 0o600)


def got_alone(lock: int) -> bool:
    """Try for the lock, without waiting, so that nobody else holds it at all. Lets go of what was held before."""
    return _got(lock, fcntl.LOCK_EX)


def got_shared(lock: int) -> bool:
    """Try for the lock, without waiting, beside others who hold it shared. Lets go of what was held before."""
    return _got(lock, fcntl.LOCK_SH)


def let_go(lock: int) -> None:
    """Hold the lock no more."""
    fcntl.flock(lock, fcntl.LOCK_UN)


def _got(lock: int, kind: int) -> bool:
    try:
        fcntl.flock(lock, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def is_held(path: Path) -> bool:
    """Whether somebody holds this lock alone. Asking takes it shared for a moment, so takers must try twice."""
    lock = open_lock(path)
    try:
        return not got_shared(lock)
    finally:
        os.close(lock)


@dataclass(frozen=True)
class Answer:
    """What a server of the folder says of itself; ``is_loading``: it is still reading its data."""

    pid: int
    is_loading: bool


def ask(files: Files, port: int) -> Answer | None:
    """Ask whoever listens on the port; None unless it is the folder's own server. Takes a second at most."""
    said = b""
    try:
        with socket.create_connection((HOST, port), timeout=1) as line:
            line.sendall(b"PING\r\nINFO server\r\nCONFIG GET dir\r\nQUIT\r\n")
            deadline = time.monotonic() + 1
            while (piece := line.recv(65536)) and time.monotonic() < deadline:
                said += piece
    except OSError:
        return None
    pid, where = (
        re.search(rb"process_id:(\d+)", said),
        re.search(rb"\r\ndir\r\n\$\d+\r\n(.*)\r\n\+OK", said, re.DOTALL),
    )
    try:
        if pid is None or where is None or not files.folder.samefile(os.fsdecode(where[1])):
            return None
    except (OSError, ValueError):
        return None
    return Answer(int(pid[1]), is_loading=not said.startswith(b"+PONG"))


def is_free(port: int) -> bool:
    """Whether a server could listen on the port now; another may still be quicker."""
    with socket.socket() as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind((HOST, port))
        except OSError:
            return False
    return True


def ports(files: Files) -> Iterator[int]:
    """Give the ports to try: the last one known, then those the folder's path stands for, so that it keeps its port."""
    if (last := files.port()) is not None:
        yield last
    first = zlib.crc32(os.fsencode(files.folder))
    yield from (PORTS[(first + 101 * step) % len(PORTS)] for step in range(100))


def last_words(log: Path) -> str:
    """Give the last line of the log without its pid, date and level."""
    with contextlib.suppress(OSError, IndexError):
        return log.read_text(errors="replace").rstrip().splitlines()[-1].split(" # ", 1)[-1]
    return "no reason was given"
