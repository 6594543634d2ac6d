"""A worker's process: the real parts and composition root, on twins of PubNub and Redis."""

import asyncio
from collections.abc import Awaitable, Callable
from contextvars import copy_context
from typing import TYPE_CHECKING, Any

from reaction_tally.keys import Keys
from tests.simulation.loop import MACHINE, running
from tests.simulation.machine import Machine
from tests.simulation.pubnub_twin import ClientTwin, PubNub
from tests.simulation.redis_twin import RedisTwin, Server
from worker.errors import ExitCode, RedisUnavailableError
from worker.service.configured import followed_names
from worker.service.parts import Parts
from worker.service.worker import compose
from worker.settings import Settings
from worker.source.names import Names
from worker.store.redis_server import RedisServer
from worker.store.rollback_detector import RollbackDetector

if TYPE_CHECKING:
    from worker.service.health import Health
    from worker.service.lifecycle import Reload, Service


def parts(pubnub: PubNub, server: Server, machine: Machine, settings: Settings) -> Parts:
    """Return what ``open_parts`` yields, on twins."""
    rollback_detector = RollbackDetector()
    redis = RedisTwin.client(server, machine, rollback_detector)
    whatever_answers = RedisTwin.client(server, machine, None)
    clients = (ClientTwin(pubnub, machine), redis, whatever_answers)
    made = Parts(*clients, settings, running().time, rollback_detector)
    made.probe_tables.server = FitServer(redis, Keys(settings.namespace))
    return made


class FitServer(RedisServer):
    """The simulation has no eviction policy, and no other address to explain a failure by."""

    async def check_writes(self) -> None:
        """Find nothing."""

    async def check_fitness(self, *, allow_eviction: bool) -> None:
        """Find nothing."""


async def claimed(parts: Parts) -> Parts:
    """Claim the namespace, as ``open_parts`` does; a supervisor starts it again and again."""
    while True:
        try:
            await parts.ownership.claim()
        except RedisUnavailableError:
            await asyncio.sleep(1)
        else:
            return parts


class Process:
    """One process on one machine."""

    def __init__(
        self,
        name: str,
        pubnub: PubNub,
        server: Server,
        settings: Settings,
        *,
        live_only: bool = False,
    ) -> None:
        self.machine = Machine(name)
        self.settings = settings
        self._pubnub = pubnub
        self._server = server
        self._service: Service | None = None
        self._reload: Reload | None = None
        self.health: Health | None = None
        """What can be asked about it, once it is put together."""
        self._live_only = live_only
        self._wanted: Names | None = None
        """What a SIGHUP asked for before the worker could follow it."""
        self._context = copy_context()
        self._context.run(MACHINE.set, self.machine)
        self.task: asyncio.Task[Any] | None = None

    @property
    def is_early(self) -> bool:
        """Whether it does not follow anything yet."""
        return self._reload is None

    @property
    def is_running(self) -> bool:
        """Whether it makes steps, or would if its machine were awake."""
        return self.task is not None and not self.task.done() and not self.machine.is_dead

    def start(self) -> None:
        """Start to follow."""
        self.task = running().create_task(self._serve(), context=self._context)

    def command(self, body: Callable[[Parts], Awaitable[Any]]) -> asyncio.Task[Any]:
        """Run one command on this machine instead."""

        async def run() -> Any:
            return await body(await self._opened())

        self.task = running().create_task(run(), context=self._context)
        return self.task

    async def _opened(self) -> Parts:
        return await claimed(parts(self._pubnub, self._server, self.machine, self.settings))

    async def _serve(self) -> ExitCode:
        of = await self._opened()
        worker = await compose(of, followed_names(self.settings))
        self._service, self._reload, self.health = worker.service, worker.reload, worker.health
        if self._live_only:
            self._service._jobs = []
        if self._wanted:
            self.reload(self._wanted)
        return await self._service.serve()

    def kill(self) -> None:
        """End the process at once: it has no effect from here on."""
        self.machine.is_dead = True
        self.machine.on_effect = None
        self.wake()
        if self.task:
            self.task.cancel()

    def stop(self) -> None:
        """Ask it to stop, as a signal does; kill it if it does not handle signals yet."""
        if self._service:
            self._service.stop("the world asks")
        else:
            self.kill()

    def reload(self, wanted: Names) -> None:
        """Let it follow these names from now on, or as soon as it follows any."""
        self._wanted = wanted
        if self._reload:
            self._reload._read = lambda: wanted
            self._reload.ask()

    def suspend(self) -> None:
        """Let the machine sleep while the world goes on."""
        if not self.machine.is_suspended:
            running().suspend(self.machine)

    def wake(self) -> None:
        """Let the machine go on."""
        if self.machine.is_suspended:
            running().resume(self.machine)
