"""Run the Dockerfile's own instructions without an engine: ``python -m tests.deploy.build PREFIX`` (of a Python 3.13).

For root, on Linux. A stage is an overlay over this machine's root with that Python as ``/usr/local``, and each RUN goes
through chroot; COPY, ENV, WORKDIR and USER do what they do. Not proven by it: that the image named in FROM exists, and
that it holds whatever this machine does. Afterwards the last stage is made read-only, and its user runs the demo in it
(emulator, Valkey, worker and a crowd, compared with the truth) with no privilege left and nothing writable but /tmp.

It happens in namespaces of its own, which take every mount and process with them when they end; only then is what was
written removed, by a process that never saw a mount: removing through one would remove this machine's /dev.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

from tests.deploy.dockerfile import ROOT, Instruction, Stage, ignore_patterns, ignored, stages
from tests.redis_server import free_port

SECONDS: Final = 1800
FIRST_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
APART: Final = ("unshare", "--mount", "--propagation=private", "--pid", "--fork", "--kill-child")
UNPRIVILEGED: Final = ("--clear-groups", "--no-new-privs", "--bounding-set=-all", "--inh-caps=-all")
CHECKS: Final = {
    "writes nowhere": "! touch /data/x /opt/tally/x /usr/local/x /x 2>/dev/null",
    "is nobody": 'test "$(id -u):$(id -g)" = 10001:10001 && ! grep -q "Cap.*:.*[1-9a-f]" /proc/self/status',
    "has no pip": "! python -m pip --version 2>/dev/null && ! python -m ensurepip --version 2>/dev/null",
    "knows its command": "tally --help >/dev/null",
    "counts exactly": "tally demo --seconds 5",
    # With a Redis it writes nothing at all; it says when it is ready; asked to stop, it does, and all is well.
    "runs, is healthy and stops": """
        trap 'kill $redis $pubnub $worker 2>/dev/null' EXIT
        server=$(python -c 'from worker.store.embedded import find_binary; print(find_binary())')
        $server --port $REDIS --save '' --appendonly no --dir / >/dev/null & redis=$!
        tally emulator --port $PUBNUB & pubnub=$!
        export REDIS_URL=redis://127.0.0.1:$REDIS PUBNUB_ORIGIN=127.0.0.1:$PUBNUB PUBNUB_TLS=false
        export PUBNUB_SUBSCRIBE_KEY=demo TALLY_CHANNELS=room TALLY_HTTP=127.0.0.1:$HTTP
        tally run & worker=$!
        tries=0
        until tally healthcheck; do tries=$((tries + 1)); test $tries -lt 60 && sleep 0.5 || exit 1; done
        tally healthcheck --live && kill -TERM $worker && wait $worker
    """,
}


def _mount(*words: str | Path) -> None:
    subprocess.run(["/bin/mount", *words], check=True, timeout=60)


class Box:
    """A stage's file system, and what its instructions have set so far."""

    def __init__(self, folder: Path, python: Path) -> None:
        self.root = folder / "root"
        self.written = [folder / "upper", folder / "local"]
        self.environment = {"PATH": FIRST_PATH, "LANG": "C.UTF-8"}
        self.cwd = "/"
        self.user = "0:0"
        self._overlay(Path("/"), folder / "upper", self.root)
        self._overlay(python, folder / "local", self.root / "usr/local")
        _mount("--rbind", "/dev", self.root / "dev")
        _mount("-t", "proc", "proc", self.root / "proc")
        self.run("ldconfig")

    @staticmethod
    def _overlay(lower: Path, upper: Path, at: Path) -> None:
        work = upper.with_name(f"{upper.name}-work")
        for folder in (upper, work, at):
            folder.mkdir(parents=True, exist_ok=True)
        _mount(
            "-t",
            "overlay",
            "overlay",
            "-o",
            f"lowerdir={lower},upperdir={upper},workdir={work}",
            at,
        )

    def path(self, inside: str) -> Path:
        """Return where a path of the stage is outside."""
        return self.root / os.path.join(self.cwd, inside).lstrip("/")  # noqa: PTH118 - an absolute one wins

    def set_ports(self, *names: str) -> None:
        """Give these variables free ports of loopback."""
        self.environment |= {name: str(free_port()) for name in names}

    def run(self, *command: str) -> int:
        """Run a command inside, as the stage's user; return its exit code."""
        user, _, group = self.user.partition(":")
        who = [
            f"--reuid={user}",
            f"--regid={group}",
            *(UNPRIVILEGED if user != "0" else ["--clear-groups"]),
        ]
        # Where packages come from is this machine's business; nothing else of its environment gets in.
        index = {name: value for name, value in os.environ.items() if name.startswith("PIP_")}
        changed = f'cd "{self.cwd}" && exec "$@"'
        words = ["chroot", self.root, "setpriv", *who, "/bin/sh", "-c", changed, "sh", *command]
        return subprocess.run(
            words, check=False, env=index | self.environment, timeout=SECONDS
        ).returncode

    def size(self) -> int:
        """Return the bytes that its instructions have added to what it began with."""
        files = (each for folder in self.written for each in folder.rglob("*"))
        return sum(
            each.lstat().st_size for each in files if each.is_file() and not each.is_symlink()
        )

    def make_read_only(self) -> None:
        """Let nothing be written from now on, but in /tmp."""
        _mount("-t", "tmpfs", "tmpfs", self.root / "tmp")
        for place in (self.root, self.root / "usr/local"):
            _mount("-o", "remount,ro", place)


class Build:
    """All stages, in their order."""

    def __init__(self, folder: Path, python: Path) -> None:
        self._folder = folder
        self._python = python
        self._boxes: dict[str, Box] = {}

    def stage(self, stage: Stage) -> Box:
        """Do what the stage's instructions say; SystemExit names the one that fails."""
        box = Box(self._folder / str(len(self._boxes)), self._python)
        self._boxes[stage.name] = box
        for each in stage.instructions:
            began = time.monotonic()
            self._do(box, each)
            sys.stdout.write(
                f"{time.monotonic() - began:6.1f} s  {each.name} {' '.join(each.text.split())[:100]}\n"
            )
            sys.stdout.flush()
        return box

    def _do(self, box: Box, each: Instruction) -> None:
        if each.name == "RUN" and box.run("/bin/sh", "-c", each.text.replace("\n", " ")):
            raise SystemExit(f"This step failed: RUN {each.text}")
        if each.name == "COPY":
            self._copy(box, each.words)
        elif each.name == "ENV":
            known = box.environment
            known |= {
                name: re.sub(r"\$(\w+)", lambda m: known[m[1]], text)
                for name, text in each.pairs.items()
            }
        elif each.name == "WORKDIR":
            box.cwd = each.text
            box.path(".").mkdir(parents=True, exist_ok=True)
        elif each.name == "USER":
            box.user = each.text

    def _copy(self, box: Box, words: list[str]) -> None:
        origin = next(
            (word.removeprefix("--from=") for word in words if word.startswith("--from=")), None
        )
        *sources, target = (word for word in words if not word.startswith("--"))
        for source in sources:
            at = box.path(target) / (Path(source).name if target.endswith("/") else "")
            if origin is None:
                _copy_context(source, at)
            else:
                shutil.copytree(self._boxes[origin].path(source), at, symlinks=True)


def _copy_context(source: str, at: Path) -> None:
    patterns = ignore_patterns()
    for path in [ROOT / source, *(ROOT / source).rglob("*")]:
        name = str(path.relative_to(ROOT))
        if path.is_file() and not ignored(name, patterns):
            target = at / path.relative_to(ROOT / source)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)


def build(folder: Path, python: Path) -> None:
    """Build in this folder, say how big it is, and look at what came of it; SystemExit says what is wrong."""
    building = Build(folder, python)
    *_, last = (
        building.stage(stage) for stage in stages((ROOT / "Dockerfile").read_text(encoding="utf-8"))
    )
    sys.stdout.write(
        f"The last stage adds {last.size() / 1e6:.1f} MB to the image it begins with.\n"
    )
    last.make_read_only()
    last.set_ports("REDIS", "PUBNUB", "HTTP")
    failed = [what for what, command in CHECKS.items() if last.run("/bin/sh", "-c", command)]
    sys.stdout.write(f"It {', '.join(what for what in CHECKS if what not in failed)}.\n")
    if failed:
        raise SystemExit(f"It fails at: {', '.join(failed)}.")


def main(python: Path) -> int:
    """Do it where nothing of it remains; return the exit code."""
    here = [sys.executable, "-m", "tests.deploy.build"]
    with tempfile.TemporaryDirectory(prefix="build-") as folder:
        return subprocess.run(
            [*APART, *here, folder, python], check=False, cwd=ROOT, timeout=SECONDS
        ).returncode


if __name__ == "__main__":
    match [Path(word) for word in sys.argv[1:]]:
        case [python]:
            sys.exit(main(python))
        case [folder, python]:
            build(folder, python)
        case _:
            sys.exit(__doc__)
