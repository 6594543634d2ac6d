"""The demo as a newcomer runs it: a real process, without a terminal, that leaves nothing behind."""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
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
}
BOUND_SECONDS = 90.0

only_where_proc_is = pytest.mark.skipif(
    not Path("/proc/self/environ").exists(), reason="looks processes up in /proc"
)


class Demo:
    """A demo under way in a folder of its own: everything it starts is known by that folder."""

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
        """Wait for it; return its exit status, what it printed, what it complained of."""
        printed, complained = self.process.communicate(timeout=BOUND_SECONDS)
        return self.process.returncode, printed, complained

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
        """Return when the emulator, which it has told of, has published something."""
        origin = self.until("PubNub").partition("http://")[2].partition(",")[0]
        deadline = time.monotonic() + BOUND_SECONDS
        while True:
            with urlopen(f"http://{origin}/emulator/truth", timeout=BOUND_SECONDS) as truth:
                if json.load(truth)["events"]:
                    return
            assert time.monotonic() < deadline, "nobody has reacted"
            time.sleep(0.05)

    def started(self, *command: str) -> list[int]:
        """Return the processes of this demo, besides itself, whose command has these words."""
        return [
            pid
            for pid, line in _processes(self.folder)
            if pid != self.process.pid and all(word in line for word in command)
        ]

    def expect_nothing_left(self) -> None:
        """Expect no process and no file of it."""
        assert self.started() == []
        assert list(self.folder.iterdir()) == []


def _processes(folder: Path) -> Iterator[tuple[int, Sequence[str]]]:
    """Yield process id and command of each process whose environment or working folder names it."""
    mark = str(folder).encode()
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            line = (entry / "cmdline").read_bytes()
            marks = (entry / "environ").read_bytes() + bytes((entry / "cwd").readlink())
            if line and mark in marks:
                yield int(entry.name), re.split("[\0 ]", line.decode(errors="replace"))
        except OSError:
            continue  # it has just ended, or is somebody else's


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder for one demo's temporary files, with a path short enough for a socket.

    Processes that a failed test leaves there are killed.
    """
    with tempfile.TemporaryDirectory(prefix="demo-") as name:
        yield Path(name)
        for pid, _ in _processes(Path(name)):
            os.kill(pid, signal.SIGKILL)


# A user's own settings, none of which may reach the demo.
CANARY = "canary"
THEIRS = {
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
    """Whatever the faults that the rule is made for, and the user's own settings, which are told to nobody.

    Without a terminal it prints plain lines: each part, the last table, the verdict.
    """
    faults = ("duplicate=0.2", "reorder=0.2", "late=0.2")
    demo = Demo(folder, "--seconds", "1", *(f"--fault={each}" for each in faults), settings=THEIRS)
    status, printed, complained = demo.end()

    assert (status, complained) == (ExitCode.DONE, "")
    demo.expect_nothing_left()
    lines = printed.splitlines()
    assert [line.split()[0] for line in lines[:4]] == ["Valkey", "PubNub", "Worker", "Look"]
    assert lines[0].split(maxsplit=1)[1].startswith("redis-cli -s ")
    assert all(each.replace("=", " ") in lines[1] for each in faults)
    assert any(re.match(r"demo\.\w+ +\d{17} +\S+ [1-9]", line) for line in lines)
    assert sum(bool(re.match(r"[1-9][\d,]* reactions, .*, over$", line)) for line in lines) == 1
    verdict = r"Verdict +[1-9][\d,]* events \(\d+/s\), [1-9]\d* messages, [1-9][\d,]* actions, 0 differences from "
    assert re.match(verdict, lines[-1])
    assert "\x1b" not in printed
    assert CANARY not in printed


@only_where_proc_is
def test_the_comparison_can_fail(folder: Path) -> None:
    """Events that are never delivered are differences, listed in one JSON object, and the exit status says so."""
    demo = Demo(
        folder, "--seconds", "1", "--rate", "60", "--seed", "7", "--json", "--fault", "lost=1"
    )
    status, printed, complained = demo.end()
    told = json.loads(printed)

    assert (status, complained) == (ExitCode.DIFFERENCES, "")
    demo.expect_nothing_left()
    assert told.keys() >= FIGURES
    assert told["differences"] > 0
    assert told["differing"]
    for each in told["differing"]:
        assert (each["expected"] > 0, each["found"]) == (True, 0)
    assert 0 < told["messages"] <= told["actions"] <= told["events"]
    assert told["events_per_second"] == pytest.approx(told["events"] / told["seconds"], rel=0.1)
    assert (told["seed"], told["faults"]) == (7, {"lost": 1.0})


@only_where_proc_is
def test_an_interruption_leaves_nothing_running(folder: Path) -> None:
    """Asked to end while the crowd reacts, it ends all it started."""
    demo = Demo(folder, "--seconds", "3600")
    demo.until_somebody_reacts()
    assert demo.started("worker", "run")
    assert demo.started("unixsocket:valkey.sock")

    demo.process.send_signal(signal.SIGINT)
    status, _, complained = demo.end()

    assert (status, complained) == (128 + signal.SIGINT, "")
    demo.expect_nothing_left()


@only_where_proc_is
def test_an_interrupted_start_leaves_nothing_running(folder: Path) -> None:
    """Asked to end before the worker is up, it ends what there is."""
    demo = Demo(folder, "--seconds", "3600")
    demo.until("Valkey")

    demo.process.send_signal(signal.SIGTERM)
    status, _, complained = demo.end()

    assert (status, complained) == (128 + signal.SIGTERM, "")
    demo.expect_nothing_left()


@only_where_proc_is
def test_a_part_that_dies_ends_the_demo(folder: Path) -> None:
    """A sentence names the part, and the others do not stay behind."""
    demo = Demo(folder, "--seconds", "3600")
    demo.until("Look")

    for pid in demo.started("worker", "run"):
        os.kill(pid, signal.SIGKILL)
    status, _, complained = demo.end()

    assert status == ExitCode.FAILED
    assert "The worker ended before its time" in complained
    demo.expect_nothing_left()


def test_a_fault_nobody_knows_is_refused_in_a_sentence(folder: Path) -> None:
    """Nothing starts; the sentence lists the faults there are."""
    status, printed, complained = Demo(folder, "--fault", "gremlins=1").end()

    assert (status, printed) == (ExitCode.USAGE, "")
    assert complained.startswith("tally: --fault 'gremlins=1': no such fault. There are: ")
    assert "duplicate" in complained
    assert list(folder.iterdir()) == []
