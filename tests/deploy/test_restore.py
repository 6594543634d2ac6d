"""The runbook's way back to a copy, line by line, on real servers."""

import re
import shlex
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

import pytest

from tests.configured_server import DEPLOYED, programs, version
from tests.deploy.dockerfile import ROOT
from tests.deploy.needed import needs, untried

SECONDS: Final = 60.0
CLIENT: Final = [shutil.which("redis-cli") or "", "-s", "redis.sock"]
PROMISE: Final = "that the runbook leads back to a copy"
RUNBOOK: Final = (ROOT / "deploy/runbook.md").read_text(encoding="utf-8")
SECTION: Final = RUNBOOK.partition("\n## Backup and restore\n")[2].partition("\n## ")[0]
CONFIGURATION: Final = "/etc/redis.conf"
HEAD: Final = re.sub(r"\n# ", " ", DEPLOYED.read_text(encoding="utf-8").partition("\n\n")[0])

pytestmark = needs("redis-cli", PROMISE)


class Machine:
    """A folder, and a server on a socket in it."""

    def __init__(self, program: Path, folder: Path) -> None:
        self.folder = folder
        self._program = program
        self._server: subprocess.Popen[bytes] | None = None

    def start(self, *options: str) -> None:
        """Start Redis with our configuration and these options; return when it answers."""
        # Without it, a server waits five seconds for more replicas than the one of the copy.
        own = ["--port", "0", "--unixsocket", "redis.sock", "--repl-diskless-sync-delay", "0"]
        command: list[str | Path] = [self._program, DEPLOYED, *own, "--dir", self.folder, *options]
        with (self.folder / "log").open("ab") as log:
            self._server = subprocess.Popen(command, stdout=log, stderr=log)
        self.until(lambda: self.has_ended() or self.ask("PING") == "PONG")
        assert not self.has_ended(), self._log()

    def ask(self, *words: str) -> str:
        """Return the answer of Redis."""
        ran = subprocess.run(
            [*CLIENT, *words], cwd=self.folder, capture_output=True, text=True, check=False
        )
        return ran.stdout.strip()

    def until(self, holds: Callable[[], bool]) -> None:
        """Wait until the condition holds."""
        deadline = time.monotonic() + SECONDS
        while not holds():
            assert time.monotonic() < deadline, self._log()
            time.sleep(0.01)

    def has_ended(self) -> bool:
        """Tell whether no server runs."""
        return self._server is None or self._server.poll() is not None

    def end(self) -> None:
        """End the server, whatever it does."""
        if self._server:
            self._server.kill()
            self._server.wait()

    def _log(self) -> str:
        return (self.folder / "log").read_text(errors="replace")


@pytest.fixture(params=["Valkey", "Redis"])
def machine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Machine]:
    """A machine for each server of this computer."""
    program = programs().get(request.param)
    if not program:
        pytest.skip(untried("redis-server", f"{PROMISE} of Redis's"))
    if (
        request.param == "Redis" and int(version(program).split(".")[0]) < 7
    ):  # it logs into a file, not a folder
        pytest.skip(untried("redis-server 7", f"{PROMISE} of Redis's"))
    machine = Machine(program, tmp_path)
    try:
        yield machine
    finally:
        machine.end()


def lines() -> list[list[str]]:
    """Return the words of each command in the runbook's section."""
    block = re.findall(r"^ {8}(\S.*)$", SECTION, re.MULTILINE)
    return [shlex.split(line, comments=True) for line in block]


def follow(machine: Machine, words: list[str]) -> None:
    """Run one command of the runbook."""
    match words:
        case ["redis-server", configuration, *options]:
            assert configuration == CONFIGURATION
            machine.start("--daemonize", "yes", *options)  # which Debian's configuration has
        case ["redis-cli", "DBSIZE"]:
            assert machine.ask("DBSIZE") != "0"
        case ["redis-cli", "INFO", section]:
            (awaited,) = re.findall(r"# until (\S+:\d)$", SECTION, re.MULTILINE)
            machine.until(lambda: awaited in machine.ask("INFO", section))
        case ["redis-cli", *question]:
            assert machine.ask(*question) in {"OK", ""}
        case _:
            subprocess.run(words, cwd=machine.folder, check=True)


def test_a_copy_comes_back_and_stays(machine: Machine) -> None:
    """With its data and no later ones, also after the next start with our configuration."""
    machine.start()
    machine.ask("HSET", "tally:{room}:counts:1", "reaction:👍", "2")
    (copying,) = re.findall(r"`redis-cli (--rdb \S+)`", SECTION)
    machine.ask(*copying.split())
    machine.ask("DEL", "tally:{room}:counts:1")
    machine.ask("SET", "damage", "1")
    machine.ask("SHUTDOWN")
    machine.until(machine.has_ended)

    for words in lines():
        follow(machine, words)
    machine.until(machine.has_ended)
    machine.start()

    assert machine.ask("KEYS", "*") == "tally:{room}:counts:1"
    assert machine.ask("HGET", "tally:{room}:counts:1", "reaction:👍") == "2"
    assert machine.ask("CONFIG", "GET", "appendonly").split() == ["appendonly", "yes"]


@pytest.mark.parametrize("first", [True, False])
def test_an_append_only_file_begins_with_the_data(machine: Machine, first: bool) -> None:
    """If it begins while the server runs, as the head of redis.conf says; else it begins empty."""
    machine.start("--appendonly", "no")
    machine.ask("SET", "kept", "1")
    machine.ask("SAVE")
    if first:
        for question in re.findall(r"`redis-cli ([\w ]+)`", HEAD):
            machine.ask(*question.split())
        machine.until(lambda: "aof_rewrite_in_progress:0" in machine.ask("INFO", "persistence"))
    machine.ask("SHUTDOWN")
    machine.until(machine.has_ended)
    machine.start()

    assert machine.ask("DBSIZE") == str(int(first))


def test_a_bare_copy_is_ignored(machine: Machine) -> None:
    """That is why the runbook has so many lines."""
    machine.start()
    machine.ask("SET", "kept", "1")
    machine.ask("--rdb", "copy")
    machine.ask("SHUTDOWN")
    machine.until(machine.has_ended)
    with suppress(FileNotFoundError):
        shutil.rmtree(machine.folder / "appendonlydir")
    (machine.folder / "copy").rename(machine.folder / "dump.rdb")
    machine.start()

    assert machine.ask("DBSIZE") == "0"
