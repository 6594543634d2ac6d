"""Commands that share an embedded Valkey, as real processes, and what a test may ask and do to them."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import redis

from worker.store.folder import Files, is_held

# A command as people start them: it attaches when told to, counts itself, and stays until its standard input ends.
COMMAND = """
import asyncio, sys
from pathlib import Path
import redis
from worker.store.embedded import embedded_server

async def main():
    print("ready", flush=True)
    sys.stdin.readline()
    async with embedded_server(Path(sys.argv[1])) as url:
        with redis.Redis.from_url(url) as client:
            client.incr("commands")
            print("run", client.info("server")["run_id"], flush=True)
        print("url", url, flush=True)
        await asyncio.to_thread(sys.stdin.read)

asyncio.run(main())
"""


def wait_until(condition: Callable[[], bool], seconds: float = 20) -> None:
    """Poll until the condition holds; fail when it does not in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.01)


def is_quiet(files: Files) -> bool:
    """Whether neither a keeper nor a server has the folder."""
    return not is_held(files.keeper_lock) and not is_held(files.server_lock)


def server_pid(files: Files) -> int:
    """Give the server's pid as the address file has it; 0 while there is none."""
    with contextlib.suppress(OSError):
        return int(json.loads(files.address.read_text())["pid"] or 0)
    return 0


def environment_of(pid: int) -> str:
    """Give what a process was told by its environment, as far as the system shows it."""
    shown = subprocess.run(["ps", "eww", "-p", str(pid)], check=True, capture_output=True, text=True)  # noqa: S607
    return shown.stdout


def kill_keeper(files: Files) -> None:
    """Kill the keeper, wait until it is dead."""
    pid = int(files.keeper_lock.read_text())
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not is_held(files.keeper_lock) or int(files.keeper_lock.read_text() or 0) not in {0, pid})


def redis_at(url: str, *command: str | int) -> Any:
    """Run one command on the server, trying again while it comes back."""
    with redis.Redis.from_url(url, decode_responses=True) as client:
        deadline = time.monotonic() + 20
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
            [sys.executable, "-c", COMMAND, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
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
        self.process.communicate(timeout=30)
        assert self.process.returncode == 0

    def kill(self) -> None:
        """End it without a chance to clean up; of no effect when it has ended."""
        self.process.kill()
        self.leave()
        self.process.communicate(timeout=30)


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
