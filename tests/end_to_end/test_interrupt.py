"""Ctrl-C and stops, from a command's start to its end: an exit code, and no traceback."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final

import pytest
import typer

from tests.processes import SETTING_PREFIXES, Child, environment
from tests.waiting import wait_until
from tests.worlds import KEYS, ROOM, World
from worker.cli.interrupts import finish
from worker.store.embedded import SERVER_LOCK, is_locked

SIGNALLED: Final = """
import atexit, os, runpy, signal, sys

number, moment = int(sys.argv.pop(1)), sys.argv.pop(1)


class Signal:
    def __del__(self):  # Python prints a KeyboardInterrupt from here, and does not raise it
        signal.raise_signal(number)


class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == moment:
            Signal()


sys.meta_path.insert(0, Finder())
if moment == "the end":
    atexit.register(Signal)
runpy.run_module("worker", run_name="__main__", alter_sys=True)
"""
"""Runs a command that gets a signal when it imports a module, or at its end."""

STUBBORN: Final = """
import asyncio, signal
from worker.cli.interrupts import finish
from worker.store.embedded import SERVER_LOCK, is_locked


async def stubborn():
    for _ in range(3):
        try:
            signal.raise_signal(signal.SIGINT)
            await asyncio.sleep(60)
        except BaseException:
            pass
    await asyncio.sleep(60)


finish(stubborn())
"""
"""Work that ends only with its process."""


async def signalled(
    folder: Path, number: signal.Signals, moment: str, *arguments: str, **settings: str
) -> tuple[int | None, str, str]:
    """Run a command that gets a signal; return its exit code, output and errors."""
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(SETTING_PREFIXES)
    }
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", SIGNALLED, str(number.value), moment, *arguments),
        cwd=folder,
        env={**environment, **settings, "PYTHONPATH": str(Path(__file__).parents[2])},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await child.communicate()
    return child.returncode, out.decode(), err.decode()


@pytest.mark.parametrize("moment", ["typer", "worker.source.client"])
async def test_an_interrupt_while_loading_is_silent(tmp_path: Path, moment: str) -> None:
    """Also where Python itself would lose the interrupt."""
    assert await signalled(tmp_path, signal.SIGINT, moment, "backfill") == (130, "", "")


async def test_a_stop_while_loading_is_silent(tmp_path: Path) -> None:
    """The first process of a container has no default handler that would end it."""
    assert await signalled(tmp_path, signal.SIGTERM, "typer", "backfill") == (143, "", "")


async def test_a_third_interrupt_ends_the_process(tmp_path: Path) -> None:
    """Whatever the work does with the first two."""
    script = tmp_path / "stubborn.py"
    script.write_text(STUBBORN)
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        str(script),
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )

    assert await child.wait() == 130


async def test_an_interrupt_after_the_end_changes_nothing(tmp_path: Path) -> None:
    """The exit code stays."""
    code, out, err = await signalled(tmp_path, signal.SIGINT, "the end", "--version")

    assert (code, err) == (0, "")
    assert out.startswith("tally ")


async def test_an_interrupt_ends_a_backfill_wherever_it_is(world: World) -> None:
    """While Redis hangs at its start or later, or PubNub fails; the next run goes on."""
    for number in range(500):
        world.react(uuid=f"user-{number}")

    async def is_held() -> bool:
        """Tell whether a command waits for Redis."""
        return any("b" in client["flags"] for client in await world.redis.client_list())

    async def is_under_way() -> bool:
        return bool(await world.redis.exists(KEYS.progress(ROOM)))

    async def interrupted() -> None:
        child.ask(signal.SIGINT)
        assert await child.ended() == 130
        assert child.out == ""
        assert "Traceback" not in child.err

    async with world.hanging_redis():
        child = world.start("backfill")
        await wait_until(is_held, what=lambda: child.err)
        await interrupted()
    assert not await is_under_way()

    world.state.set_outage("server_error", ["actions"])
    child = world.start("backfill")
    await wait_until(lambda: world.emulator.requests["actions"], what=lambda: child.err)
    await interrupted()
    assert await is_under_way()

    world.state.set_outage(None)
    already = world.emulator.requests["actions"]
    child = world.start("backfill")
    await wait_until(lambda: world.emulator.requests["actions"] > already, what=lambda: child.err)
    async with world.hanging_redis():
        await wait_until(is_held, what=lambda: child.err)
        await interrupted()
    assert await is_under_way()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
async def test_a_stopped_command_stops_its_valkey(world: World, number: signal.Signals) -> None:
    """A command that is ended closes what it has opened; the exit code says which signal it was."""
    lock = world.folder / ".tally" / SERVER_LOCK
    async with silent_server() as (origin, asked):
        child = world.start("backfill", REDIS_URL=None, PUBNUB_ORIGIN=origin)
        await wait_until(asked.is_set, what=lambda: child.err)
        await wait_until(lambda: is_locked(lock), what=lambda: child.err)

        child.ask(number)
        child.ask(signal.SIGHUP)  # a terminal that closes sends it twice

        assert await child.ended() == 128 + number
    assert not is_locked(lock)


@asynccontextmanager
async def silent_server() -> AsyncIterator[tuple[str, asyncio.Event]]:
    """Yield the address of a server that never answers, and whether it was asked."""
    asked = asyncio.Event()

    async def listen(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        asked.set()

    writers: list[asyncio.StreamWriter] = []
    server = await asyncio.start_server(listen, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    try:
        yield f"{host}:{port}", asked
    finally:
        server.close()
        for writer in writers:
            writer.close()
        for writer in writers:
            with suppress(OSError):
                await writer.wait_closed()


async def stubborn() -> str:
    """Swallow a cancellation, as PubNub's SDK does, and redis-py on Python 3.11."""
    signal.raise_signal(signal.SIGINT)
    try:
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        return "as if nothing had happened"
    raise AssertionError("it was not cancelled")


async def slow_cleanup() -> None:
    """Get another interrupt during a cleanup of a minute."""
    signal.raise_signal(signal.SIGINT)
    try:
        await asyncio.sleep(60)
    finally:
        signal.raise_signal(signal.SIGINT)
        await asyncio.sleep(60)


async def failing_cleanup() -> None:
    """Fail with another error during the cleanup."""
    signal.raise_signal(signal.SIGINT)
    try:
        await asyncio.sleep(60)
    finally:
        raise OSError("a connection that was cut")


async def completed_meanwhile() -> None:
    """Wait for a future that a callback completes; the interrupt comes inside that callback."""
    future = asyncio.get_running_loop().create_future()

    def complete() -> None:
        signal.raise_signal(signal.SIGINT)
        future.set_result(None)

    asyncio.get_running_loop().call_soon(complete)
    await future
    await asyncio.sleep(60)


@pytest.mark.parametrize("work", [stubborn, slow_cleanup, failing_cleanup, completed_meanwhile])
def test_interrupts_end_every_work(work: type, caplog: pytest.LogCaptureFixture) -> None:
    """Even if the work swallows them; afterwards the previous handler is back."""
    before = signal.getsignal(signal.SIGINT)

    with pytest.raises(typer.Exit) as ended:
        finish(work())

    assert ended.value.exit_code == 130
    assert signal.getsignal(signal.SIGINT) is before
    assert caplog.records == []


async def test_a_stop_while_a_worker_loads_is_a_success(tmp_path: Path) -> None:
    """Nothing was read yet, so the exit code is 0. A SIGHUP ends nothing."""
    stopped = await signalled(tmp_path, signal.SIGTERM, "worker.live.subscription", "run")
    hung_up = await signalled(tmp_path, signal.SIGHUP, "worker.live.subscription", "run")

    assert stopped == (0, "", "")
    assert hung_up[0] == 2
    assert "PUBNUB_SUBSCRIBE_KEY is not set" in hung_up[2]


async def _heard(child: Child) -> None:
    """Wait until the process no longer ends at a SIGHUP: its first line has run."""
    status = Path(f"/proc/{child.process.pid}/status")

    def is_heard() -> bool:
        masks = dict(line.split(":") for line in status.read_text().splitlines())
        handled = int(masks["SigBlk"], 16) | int(masks["SigCgt"], 16)
        return bool(handled >> (signal.SIGHUP - 1) & 1)

    await wait_until(is_heard)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
async def test_a_reload_is_heard_at_every_moment(world: World) -> None:
    """A SIGHUP from the first line on is never lost: the worker follows the new list."""

    async def reloads(number: int, seconds: float) -> None:
        listed = world.folder / f"{number}.channels"
        listed.write_text(ROOM)
        worker = world.start("run", TALLY_CHANNELS=None, TALLY_CHANNELS_FILE=str(listed))
        await _heard(worker)
        await asyncio.sleep(seconds)
        listed.write_text(f"{ROOM}\nhall")
        worker.ask(signal.SIGHUP)
        await worker.logs("channels_reloaded")
        assert worker.entries("channels_reloaded")[0]["names"] == 2
        assert await worker.stopped() == 0

    moments = (0, 0.1, 0.2, 0.3, 0.5, 0.8, 1.1, 1.5)
    await asyncio.gather(*map(reloads, range(len(moments)), moments))


async def test_a_reload_on_a_terminal_is_heard_while_loading(world: World) -> None:
    """With a list in a file a SIGHUP is no end, on a terminal neither."""
    listed = world.folder / "channels"
    listed.write_text(ROOM)
    settings = {**world.settings, "TALLY_CHANNELS": "", "TALLY_CHANNELS_FILE": str(listed)}
    own, terminal = os.openpty()
    os.set_blocking(own, False)
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", SIGNALLED, str(signal.SIGHUP.value), "typer", "run"),
        env={**environment(settings), "PYTHONPATH": str(Path(__file__).parents[2])},
        stderr=terminal,
    )
    log = bytearray()

    def has_reloaded() -> bool:
        with suppress(BlockingIOError):
            log.extend(os.read(own, 10_000))
        return b"channels_reloaded" in log

    await wait_until(has_reloaded, what=log.decode)
    child.terminate()
    assert await child.wait() == 0


async def test_signals_while_redis_hangs(world: World) -> None:
    """A stop ends the worker with 0. A SIGHUP makes it read its list of channels again."""
    async with world.hanging_redis():
        listed = world.folder / "channels"
        listed.write_text(ROOM)
        stops = world.start("run")
        hangs_up = world.start("run", TALLY_CHANNELS=None, TALLY_CHANNELS_FILE=str(listed))
        for worker, number in ((stops, signal.SIGTERM), (hangs_up, signal.SIGHUP)):
            await wait_until(lambda worker=worker: worker.entries("worker_starts"))  # type: ignore[misc]
            worker.ask(number)
        assert await stops.ended() == 0
    assert not stops.entries("subscription_starts")
    await wait_until(lambda: hangs_up.entries("channels_reloaded"), what=lambda: hangs_up.err)
    assert await hangs_up.stopped() == 0
    assert "Traceback" not in stops.err + hangs_up.err
