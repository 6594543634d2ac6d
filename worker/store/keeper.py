"""The keeper: one process a folder that starts the embedded Valkey, keeps it up, and stops it with its last user.

It is a process of its own because it must outlive every user but the last. It and what it imports need the standard
library only, so that it starts fast. Killing it harms nobody: the server goes on, and the next keeper takes it over.
"""

import contextlib
import enum
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from worker.store.folder import (
    Files,
    ask,
    got_alone,
    is_free,
    is_held,
    last_words,
    open_lock,
    ports,
)

TICK_SECONDS = 0.05
APPLY_WAIT_SECONDS = (
    20.0  # how long a server may say nothing at all while it starts, and may take to stop
)
RESTARTS = 5
LOG_BYTES = 1_000_000
OPTIONS = "--bind 127.0.0.1 --daemonize no --appendonly yes --appendfsync everysec --maxmemory-policy noeviction"


class Ended(enum.IntEnum):
    """How a keeper ended, as its exit status."""

    WELL = 0  # no user was left, or another keeper was there
    FAILED = 3  # the server does not start; the log's last line says why


class NotStartedError(Exception):
    """The server did not start; the log has the reason."""


class Server:
    """A running valkey-server: our own child, or (``process`` is None) one that a killed keeper left behind."""

    def __init__(
        self, files: Files, port: int, pid: int, process: subprocess.Popen[bytes] | None = None
    ) -> None:
        self.port = port
        self._files = files
        self._pid = pid
        self._process = process

    @classmethod
    def launch(cls, files: Files, binary: str, port: int) -> "Server":
        """Start the server with ``server.lock`` in its hands; raise NotStartedError while another holds it."""
        lock = open_lock(files.server_lock)
        try:
            # The server may be gone while the child that rewrites its file still is not: wait for both.
            if not wait_until(lambda: got_alone(lock)):
                raise NotStartedError("another server holds the folder and does not answer")
            files.publish(
                port, None
            )  # before there is a server: a keeper that finds the lock held knows where to ask
            command = [binary, *OPTIONS.split(), "--save", "", "--port", str(port)]
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, pass_fds=[lock])  # noqa: S603 - our own binary
        finally:
            os.close(lock)
        return cls(files, port, process.pid, process)

    def is_up(self) -> bool:
        """Whether the process is there, answering or not."""
        return self._process.poll() is None if self._process else is_held(self._files.server_lock)

    def stop(self) -> None:
        """Ask it to write everything down and end; a server that does not is killed (its log has what it answered)."""
        for sign in (signal.SIGTERM, signal.SIGKILL):
            if self.is_up():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(self._pid, sign)
            if wait_until(lambda: not self.is_up()):
                return


def wait_until(condition: Callable[[], bool], seconds: float = APPLY_WAIT_SECONDS) -> bool:
    """Poll until the condition holds, and say whether it did in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(TICK_SECONDS / 5)
    return True


class Keeper:
    """Holds ``keeper.lock`` (its caller saw to that) and runs until no user is left."""

    def __init__(self, files: Files, binary: str) -> None:
        self._files = files
        self._binary = binary
        self._users = open_lock(files.users_lock)

    def run(self) -> None:
        """Keep a server up until no user is left, then stop it. Raise NotStartedError if it cannot be kept up."""
        server = self._left_behind() or self._first_server()
        try:
            while not self._is_deserted():
                if not server.is_up():
                    say(f"the server on port {server.port} is gone; starting it again")
                    server = self._again(server.port)
                time.sleep(TICK_SECONDS)
        finally:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            server.stop()
            if (
                self._is_deserted()
            ):  # else the users that are left look for the next server at this port
                self._files.address.unlink(missing_ok=True)

    def _is_deserted(self) -> bool:
        # Polled, not waited for: on some systems a waiting exclusive lock would keep new users out.
        # Once got, it is kept to the end: a user who comes now waits, then finds no server and starts anew.
        return got_alone(self._users)

    def _left_behind(self) -> Server | None:
        """Find the server of a keeper that was killed; None once no server holds the folder (or none that answers)."""
        deadline = time.monotonic() + APPLY_WAIT_SECONDS
        while is_held(self._files.server_lock) and time.monotonic() < deadline:
            port = self._files.port()
            if port is not None and (answer := ask(self._files, port)):
                say(f"taking over the server on port {port}")
                return Server(self._files, port, answer.pid)
            time.sleep(TICK_SECONDS)
        return None

    def _first_server(self) -> Server:
        for port in filter(is_free, ports(self._files)):
            try:
                return self._started(port)
            except NotStartedError:
                if is_free(port):  # else somebody was quicker, which is no reason to give up
                    raise
        raise NotStartedError("every port it might use is taken")

    def _again(self, port: int) -> Server:
        """Start anew on the same port, where the users are looking."""
        for _ in range(RESTARTS - 1):
            try:
                return self._started(port)
            except NotStartedError as error:
                say(str(error))
                time.sleep(TICK_SECONDS)
        return self._started(port)

    def _started(self, port: int) -> Server:
        server = Server.launch(self._files, self._binary, port)
        try:
            self._wait_for_answer(server)
        except BaseException:
            server.stop()
            raise
        return server

    def _wait_for_answer(self, server: Server) -> None:
        """Wait until it serves, however long it reads its data, or until nobody is waiting for it any more."""
        deadline = time.monotonic() + APPLY_WAIT_SECONDS
        while not self._is_deserted():
            if not server.is_up():
                raise NotStartedError(last_words(self._files.log))
            if answer := ask(self._files, server.port):
                if not answer.is_loading:
                    return self._files.publish(server.port, answer.pid)
                deadline = time.monotonic() + APPLY_WAIT_SECONDS
            if time.monotonic() > deadline:
                raise NotStartedError(f"the server on port {server.port} does not answer")
            time.sleep(TICK_SECONDS / 5)
        return None


def say(words: str) -> None:
    """Write one line into the log, in the server's own form; if it cannot be written, go on without."""
    with contextlib.suppress(OSError):
        sys.stderr.write(f"{os.getpid()}:K {time.strftime('%d %b %Y %H:%M:%S')} # {words}\n")
        sys.stderr.flush()


def main(folder: str, binary: str) -> Ended:
    """Keep the folder's server, unless somebody does already."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(Ended.WELL))
    files = Files(Path(folder).resolve())
    os.chdir(files.folder)  # the server keeps its data where it stands
    lock = open_lock(files.keeper_lock)  # never closed: the kernel does that, when all else is done
    if not wait_until(lambda: got_alone(lock), 2 * TICK_SECONDS):
        return Ended.WELL
    os.truncate(lock, 0)
    os.write(lock, f"{os.getpid()}\n".encode())  # for people; nothing here reads it
    try:
        if files.log.stat().st_size > LOG_BYTES:
            os.truncate(files.log, 0)
        Keeper(files, binary).run()
    except (NotStartedError, OSError) as error:
        say(str(error))
        return Ended.FAILED
    return Ended.WELL
