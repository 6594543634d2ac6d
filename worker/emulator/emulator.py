"""Starts and stops the emulator."""

from collections import Counter
from collections.abc import Mapping
from random import Random
from time import time

from aiohttp import web

from worker.emulator.longpoll import LongPolls
from worker.emulator.server import MAX_REQUEST_LINE, Server
from worker.emulator.state import State
from worker.emulator.storage import Truth


class Emulator:
    """A PubNub for one laptop, over HTTP, inside an ``async with`` block.

    ``state`` can be called at any time from the loop's own thread.
    """

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        seed: int = 0,
        faults: Mapping[str, float] | None = None,
        subscribe_key: str | None = None,
        idle_seconds: float = 280.0,
    ) -> None:
        """Prepare, without listening.

        ``port`` 0 takes a free one. ``faults`` gives rates from 0 to 1 to
        names of ``FAULT_NAMES``, and ``seed`` makes them repeatable.
        Without a ``subscribe_key``, any key is accepted. An idle poll is
        answered after ``idle_seconds``.
        """
        random = Random(seed)  # noqa: S311 - faults are to be repeatable, not secret
        self.state = State(time, random, faults, subscribe_key or "demo")
        self._address = (host, port)
        self._polls = LongPolls(self.state, idle_seconds)
        self._server = Server(self.state, self._polls, subscribe_key)
        self._runner: web.ServerRunner | None = None

    async def __aenter__(self) -> "Emulator":
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Listen.

        Raises:
            OSError: The address cannot be used. The message names it.
        """
        server = web.Server(
            self._server.respond,
            handler_cancellation=True,
            access_log=None,
            max_line_size=2 * MAX_REQUEST_LINE,
        )
        runner = web.ServerRunner(server, shutdown_timeout=1.0)
        await runner.setup()
        host, port = self._address
        try:
            await web.TCPSite(runner, host, port).start()
        except OSError as error:
            await runner.cleanup()
            problem = f"the emulator cannot listen on {host}:{port}: {error.strerror}"
            raise OSError(error.errno, problem) from error
        self._polls.open()
        self._runner = runner

    async def stop(self) -> None:
        """End all requests. The emulator can be stopped twice."""
        runner = self._runner
        self._runner = None
        if runner is not None:
            self._polls.close()
            await runner.cleanup()

    @property
    def origin(self) -> str:
        """Its ``host:port``, the SDK's origin."""
        if self._runner is None:
            raise RuntimeError("the emulator is not running")
        host, port = self._runner.addresses[0][:2]
        return f"{host}:{port}"

    @property
    def requests(self) -> Counter[str]:
        """The number of requests by operation, for example ``subscribe``."""
        return self._server.requests

    @property
    def waiting(self) -> int:
        """The number of polls that wait for an event now."""
        return self._polls.waiting

    def truth(self) -> Truth:
        """Return the true counts."""
        return self.state.truth()
