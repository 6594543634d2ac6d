"""The demo as a newcomer runs it: a real process without a terminal."""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.request import urlopen

import pytest

from worker.errors import ExitCode

ROOT = Path(__file__).parents[2]
FIGURES = {
    "events",
    "messages",
    "actions",
    "differences",
    "events_per_second",
    "seconds",
    "seed",
    "faults",
    "access",
    "crowd",
    "differing",
}
BOUND_SECONDS = 90.0

only_where_proc_is = pytest.mark.skipif(
    not Path("/proc/self/environ").exists(), reason="looks processes up in /proc"
)


class Demo:
    """A running demo with temporary files of its own."""

    def __init__(
        self, folder: Path, *arguments: str, settings: Mapping[str, str] | None = None
    ) -> None:
        self.folder = folder
        self.process = subprocess.Popen(
            [sys.executable, "-m", "worker", "demo", *arguments],
            cwd=ROOT,
            env={**os.environ, "TMPDIR": str(folder), "PYTHONUNBUFFERED": "1", **(settings or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def end(self) -> tuple[int, str, str]:
        """Wait for its end. Return exit status, output and errors."""
        output, errors = self.process.communicate(timeout=BOUND_SECONDS)
        return self.process.returncode, output, errors

    def until(self, word: str) -> str:
        """Return the first line it prints with this word."""
        assert self.process.stdout
        lines: list[str] = []
        for line in self.process.stdout:
            lines.append(line)
            if word in line:
                return line
        raise AssertionError(f"{word!r} was never printed: {lines} {self.process.communicate()}")

    def until_somebody_reacts(self) -> None:
        """Wait until its emulator has published an event."""
        origin = self.until("PubNub").partition("http://")[2].partition(",")[0]
        deadline = time.monotonic() + BOUND_SECONDS
        while True:
            with urlopen(f"http://{origin}/emulator/truth", timeout=BOUND_SECONDS) as truth:
                if json.load(truth)["events"]:
                    return
            assert time.monotonic() < deadline, "nobody has reacted"
            time.sleep(0.05)

    def children(self, *words: str) -> list[int]:
        """Return the processes it has started whose command has these words."""
        return [
            pid
            for pid, command in _processes(self.folder)
            if pid != self.process.pid and set(words) <= set(command)
        ]

    def expect_nothing_left(self) -> None:
        """Expect no process and no file of it."""
        assert self.children() == []
        assert list(self.folder.iterdir()) == []


def _processes(folder: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield id and command of each process with this folder in its environment or as its own."""
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            command = (entry / "cmdline").read_bytes().decode(errors="replace")
            places = (entry / "environ").read_bytes() + bytes((entry / "cwd").readlink())
        except OSError:
            continue  # it has just ended, or belongs to another user
        if command and str(folder).encode() in places:
            yield int(entry.name), re.split("[\0 ]", command)


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder for one demo's temporary files, with a path short enough for a socket.

    Processes that a failed test leaves there are killed.
    """
    with tempfile.TemporaryDirectory(prefix="demo-") as name:
        yield Path(name)
        for pid, _ in _processes(Path(name)):
            os.kill(pid, signal.SIGKILL)


# A user's own settings. None of them may reach the demo.
CANARY = "canary"
USER_SETTINGS = {
    "PUBNUB_SUBSCRIBE_KEY": f"sub-c-{CANARY}",
    "PUBNUB_PUBLISH_KEY": f"pub-c-{CANARY}",
    "PUBNUB_SECRET_KEY": f"sec-c-{CANARY}",
    "PUBNUB_AUTH_TOKEN": CANARY,
    "PUBNUB_ORIGIN": "127.0.0.1:9",
    "PUBNUB_ASYNC_REQUEST_HANDLER": "no.such.module",
    "REDIS_URL": f"redis://:{CANARY}@127.0.0.1:9",
    "TALLY_CHANNELS": CANARY,
    "TALLY_NAMESPACE": CANARY,
    "TALLY_LOG_LEVEL": "nonsense",
}


@only_where_proc_is
def test_it_ends_equal_to_the_truth(folder: Path) -> None:
    """With faults, and whatever the user's own settings are.

    Without a terminal it prints plain lines: each part, the last table, the verdict.
    """
    faults = ("duplicate=0.2", "reorder=0.2", "late=0.2")
    options = [f"--fault={fault}" for fault in faults]
    demo = Demo(folder, "--seconds", "1", *options, settings=USER_SETTINGS)
    status, output, errors = demo.end()

    assert (status, errors) == (ExitCode.DONE, "")
    demo.expect_nothing_left()
    lines = output.splitlines()
    assert [line.split()[0] for line in lines[:4]] == ["Valkey", "PubNub", "Worker", "Look"]
    assert re.fullmatch(r"Board +http://127\.0\.0\.1:\d+/board  until the demo ends: .+", lines[4])
    assert lines[0].split(maxsplit=1)[1].startswith(f"redis-cli -s {folder}")
    assert all(fault.replace("=", " ") in lines[1] for fault in faults)
    assert any(re.match(r"demo\.\w+ +\d{17} +\S+ [1-9]", line) for line in lines)
    assert "…" not in output
    assert sum(bool(re.match(r"[1-9][\d,]* reactions, .*, over$", line)) for line in lines) == 1
    assert re.match(
        r"Verdict +[1-9][\d,]* events \(\d+/s\), [1-9]\d* messages, [1-9][\d,]* actions,"
        r" 0 differences from ",
        lines[-1],
    )
    assert "\x1b" not in output
    assert CANARY not in output


@only_where_proc_is
@pytest.mark.parametrize("access", ["signatures", "tokens"])
def test_with_access_manager_it_ends_equal_to_the_truth(folder: Path, access: str) -> None:
    """Every request of a user and of the worker is let through. Whatever else comes is not."""
    demo = Demo(folder, "--seconds", "1", "--access", access, "--json")
    status, output, errors = demo.end()
    result = json.loads(output)

    assert (status, errors, result["access"]) == (ExitCode.DONE, "", access)
    assert result["crowd"]["added"] > 0
    assert "failed" not in result["crowd"]
    assert (result["differences"], result["actions"] > 0) == (0, True)
    demo.expect_nothing_left()


@only_where_proc_is
def test_the_comparison_can_fail(folder: Path) -> None:
    """Events that are never delivered are differences, in the JSON object and the exit status."""
    demo = Demo(
        folder, "--seconds", "1", "--rate", "60", "--seed", "7", "--json", "--fault", "lost=1"
    )
    status, output, errors = demo.end()
    result = json.loads(output)

    assert (status, errors) == (ExitCode.DIFFERENCES, "")
    demo.expect_nothing_left()
    assert result.keys() == FIGURES
    assert result["differences"] > 0
    assert result["differing"]
    for difference in result["differing"]:
        assert (difference["expected"] > 0, difference["found"]) == (True, 0)
    assert 0 < result["messages"] <= result["actions"] <= result["events"]
    rate = result["events"] / result["seconds"]
    assert result["events_per_second"] == pytest.approx(rate, rel=0.1)
    assert (result["seed"], result["faults"]) == (7, {"lost": 1.0})


@only_where_proc_is
def test_an_interruption_leaves_nothing_running(folder: Path) -> None:
    """While the crowd reacts."""
    demo = Demo(folder, "--seconds", "3600")
    demo.until_somebody_reacts()
    assert demo.children("worker", "run")
    assert demo.children("unixsocket:valkey.sock")

    demo.process.send_signal(signal.SIGINT)
    status, _, errors = demo.end()

    assert (status, errors) == (128 + signal.SIGINT, "")
    demo.expect_nothing_left()


@only_where_proc_is
def test_an_interrupted_start_leaves_nothing_running(folder: Path) -> None:
    """Before the worker is up."""
    demo = Demo(folder, "--seconds", "3600")
    demo.until("Valkey")

    demo.process.send_signal(signal.SIGTERM)
    status, _, errors = demo.end()

    assert (status, errors) == (128 + signal.SIGTERM, "")
    demo.expect_nothing_left()


@only_where_proc_is
def test_a_worker_that_dies_ends_the_demo(folder: Path) -> None:
    """A sentence says so, and nothing is left."""
    demo = Demo(folder, "--seconds", "3600")
    demo.until("Look")

    for pid in demo.children("worker", "run"):
        os.kill(pid, signal.SIGKILL)
    status, _, errors = demo.end()

    assert status == ExitCode.FAILED
    assert "The worker ended before its time" in errors
    demo.expect_nothing_left()


def test_an_unknown_fault_is_refused_in_a_sentence(folder: Path) -> None:
    """Nothing starts. The sentence lists the known faults."""
    status, output, errors = Demo(folder, "--fault", "gremlins=1").end()

    assert (status, output) == (ExitCode.USAGE, "")
    assert errors.startswith("tally: --fault 'gremlins=1': no such fault. There are: ")
    assert "duplicate" in errors
    assert list(folder.iterdir()) == []
