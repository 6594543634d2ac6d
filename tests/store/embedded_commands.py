"""Commands that share an embedded Valkey, as real processes, and what a test may ask and do to them."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.redis_server import free_port
from worker.store.folder import Files, is_held, ports

# A command as people start them: it attaches when told to, counts itself, and stays until its standard input ends.
# It asks the server in bare words: to import a client takes longer than all the rest.
COMMAND = """
import asyncio, re, socket, sys
from pathlib import Path
from urllib.parse import urlsplit
from worker.store.embedded import embedded_server

def ask(url, words):
    with socket.create_connection(("127.0.0.1", urlsplit(url).port)) as line:
        line.sendall(words.encode())
        return b"".join(iter(lambda: line.recv(65536), b"")).decode()

async def main():
    print("ready", flush=True)
    sys.stdin.readline()
    async with embedded_server(Path(sys.argv[1])) as url:
        said = ask(url, "INCR commands\\r\\nINFO server\\r\\nQUIT\\r\\n")
        print("run", re.search("run_id:([0-9a-f]+)", said)[1], flush=True)
        print("url", url, flush=True)
        await asyncio.to_thread(sys.stdin.read)

asyncio.run(main())
"""


def folder_with_its_port(parent: Path) -> Path:
    """Return a folder that is not there yet, whose own port is free and stays so for whoever is to have it."""
    for number in count():
        folder = parent / f"with space {number}" / ".tally"
        with contextlib.suppress(OSError):
            free_port(next(ports(Files(folder.resolve()))))
            return folder
    raise AssertionError("unreachable")


def wait_until(condition: Callable[[], bool], seconds: float = 60) -> None:
    """Poll until the condition holds; fail when it does not in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.01)


def is_quiet(files: Files) -> bool:
    """Whether neither a keeper nor a server has the folder."""
    return not is_held(files.keeper_lock) and not is_held(files.server_lock)


def server_pid(files: Files, *, but: int = 0) -> int:
    """Give the server's pid, another than that, once its keeper has written it down."""
    found = 0

    def is_written() -> bool:
        nonlocal found
        with contextlib.suppress(OSError):  # there is no address while there is no server
            found = int(json.loads(files.address.read_text())["pid"] or 0)
        return found not in {0, but}

    wait_until(is_written)
    return found


def keeper_pid(files: Files) -> int:
    """Give the keeper's pid, once it has written it down."""
    found = 0

    def is_written() -> bool:
        nonlocal found
        found = int(files.keeper_lock.read_text() or 0)
        return found != 0

    wait_until(is_written)
    return found


def environment_of(pid: int) -> str:
    """Give what a process was told by its environment, as far as the system shows it."""
    with contextlib.suppress(FileNotFoundError):
        return Path(f"/proc/{pid}/environ").read_text(errors="replace")
    ps = shutil.which("ps")
    if not ps:
        pytest.skip("neither /proc nor ps on this machine: that the keeper is told no secrets")
    return subprocess.run(
        [ps, "eww", "-p", str(pid)], check=True, capture_output=True, text=True
    ).stdout


def kill_keeper(files: Files) -> None:
    """Kill the keeper, wait until it is dead."""
    pid = keeper_pid(files)
    with contextlib.suppress(
        ProcessLookupError
    ):  # one who was killed before, and has no successor yet
        os.kill(pid, signal.SIGKILL)
    wait_until(
        lambda: (
            not is_held(files.keeper_lock) or files.keeper_lock.read_text() not in {"", f"{pid}\n"}
        )
    )


def redis_at(url: str, *command: str | int) -> Any:
    """Run one command on the server, trying again while it comes back."""
    with redis.Redis.from_url(url, decode_responses=True, retry=Retry(NoBackoff(), 0)) as client:
        deadline = time.monotonic() + 60
        while True:
            try:
                return client.execute_command(*command)
            except (redis.ConnectionError, redis.exceptions.BusyLoadingError):
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.01)


class Command:
    """A real process that uses the folder."""

    def __init__(self, folder: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", COMMAND, str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def word(self, name: str) -> str:
        """Wait for the line that begins with this name, and give its rest."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith(name):
                return line.removeprefix(name).strip()
        raise AssertionError(f"the command ended without a word of its {name}")

    def go(self) -> None:
        """Let it attach."""
        assert self.process.stdin is not None
        self.process.stdin.write("go\n")
        self.process.stdin.flush()

    def leave(self) -> None:
        """Tell it to leave the normal way."""
        stdin, self.process.stdin = self.process.stdin, None
        if stdin is not None:
            stdin.close()

    def end(self) -> None:
        """Let it leave the normal way, and wait until it has."""
        self.leave()
        self.process.communicate(timeout=100)
        assert self.process.returncode == 0

    def kill(self) -> None:
        """End it without a chance to clean up; of no effect when it has ended."""
        self.process.kill()
        self.leave()
        self.process.communicate(timeout=100)


class Commands:
    """The commands of one test, and their folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files = Files(folder.resolve())
        self.all: list[Command] = []

    def ready(self) -> Command:
        """Start a command that waits for its ``go``."""
        self.all.append(Command(self.folder))
        return self.all[-1]

    def start(self) -> tuple[Command, str]:
        """Start a command and wait until it is attached; give its URL too."""
        command = self.ready()
        command.go()
        return command, command.word("url")
