"""redis-py's client, as far as the worker uses it, on a keyspace in memory, with its faults."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextvars import Context
from random import Random
from typing import TYPE_CHECKING, Any, Final, cast

from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import OutOfMemoryError, RedisError

from tests.simulation.keyspace import (
    READS_TOO,
    REDIS_ONLY,
    SCRIPTS,
    Commands,
    Keyspace,
    effect_of,
)
from tests.simulation.loop import running
from tests.simulation.machine import Machine
from tests.simulation.notes import Notes
from worker.store.rollback_detector import RollbackDetector

if TYPE_CHECKING:
    from redis.asyncio.connection import AbstractConnection

NETWORK: Final = Context()
"""What happens on the way, or at the other end, happens on no machine of ours."""


class Server:
    """One address behind which a Redis answers: now this one, now that one, now none."""

    def __init__(self, keyspace: Keyspace, random: Random, notes: Notes | None = None) -> None:
        self.keyspace = keyspace
        self.is_down = False
        self.is_full = False
        self.epoch = 0
        """Which connections hold: those made in an earlier one are cut."""
        self.calls = 0
        self.faults = 0
        self.slowness = 0.0
        """How often a call takes long."""
        self.notes = notes or Notes(keyspace.clock)
        self._random = random
        self._runs = 0

    def cut(self) -> None:
        """Break every connection; what was under way may or may not have happened."""
        self.epoch += 1

    def replace(self) -> None:
        """Be another server, as far as anyone can tell."""
        self._runs += 1
        self.keyspace.run_id = f"run-{self._runs}"
        self.cut()

    def delay(self) -> float:
        """Return how long one way takes, in seconds."""
        draw = self._random.random()
        if draw < self.slowness:
            return 0.5 + 90 * self._random.random() ** 4
        return 0.0002 + 0.003 * draw

    def arrives(self) -> bool:
        """Tell whether what a killed process had sent still arrives."""
        return self._random.random() < 0.5

    def parts(self, commands: Commands) -> int:
        """Return after how many of a pipeline's commands somebody else comes in between."""
        if len(commands) > 1 and self._random.random() < 0.1:
            return self._random.randrange(1, len(commands))
        return len(commands)

    def do(self, name: str, args: Sequence[Any], options: Mapping[str, Any]) -> Any:
        """Do one command.

        Raises:
            RedisError: it cannot.
        """
        if self.is_full and name not in REDIS_ONLY and name not in READS_TOO:
            raise OutOfMemoryError("command not allowed when used memory > 'maxmemory'.")
        return self.keyspace.do(name, args, options)


class Call:
    """Commands on their way there, and the answer on its way back."""

    def __init__(self, twin: "RedisTwin", commands: Commands, *, transaction: bool) -> None:
        self._twin = twin
        self._server = twin.server
        self._commands = commands
        self._transaction = transaction
        self._results: list[Any] = []
        self._epoch = 0
        self._loop = running()
        self.future: asyncio.Future[list[Any]] = self._loop.create_future()
        self._later(self._arrive)

    def _later(self, step: Callable[[], None]) -> None:
        self._loop.call_later(self._server.delay(), step, context=NETWORK)

    def _arrive(self) -> None:
        server, machine = self._server, self._twin.machine
        if machine.is_dead and not server.arrives():
            return
        if server.is_down:
            server.notes.unreachable(machine)
            self._fail(RedisConnectionError("nobody listens"))
            return
        try:
            self._twin.greet()
        except RedisError as error:
            self._fail(error)
            return
        self._epoch = server.epoch
        self._work()

    def _work(self) -> None:
        """Do the commands, or some of them: a pipeline is no transaction."""
        server, done = self._server, len(self._results)
        if self._epoch != server.epoch:
            self._fail(RedisConnectionError("the connection broke"))
            return
        left = self._commands[done:]
        for name, args, options in left[: len(left) if self._transaction else server.parts(left)]:
            server.calls += 1
            try:
                self._results.append(server.do(name, args, options))
            except RedisError as error:
                self._results.append(error)
            effect = effect_of(name, args)
            server.notes.command(self._twin.machine, effect, args, options, self._results[-1])
            self._twin.machine.count_effect(effect)
        self._later(self._work if len(self._results) < len(self._commands) else self._answer)

    def _answer(self) -> None:
        if self._epoch != self._server.epoch:
            self._fail(RedisConnectionError("the connection broke before the answer"))
        elif not self.future.done():
            self.future.set_result(self._results)

    def _fail(self, error: RedisError) -> None:
        self._server.faults += 1
        if not self.future.done():
            self.future.set_exception(error)


class RedisTwin:
    """A client of one process. With a detector it checks the server, as ``connect`` does."""

    def __init__(
        self, server: Server, machine: Machine, rollback_detector: RollbackDetector | None
    ) -> None:
        self.server = server
        self.machine = machine
        self._rollback_detector = rollback_detector
        self._greeted = -1

    @classmethod
    def client(
        cls, server: Server, machine: Machine, rollback_detector: RollbackDetector | None
    ) -> Redis:
        """Return it as what it stands for."""
        return cast("Redis", cls(server, machine, rollback_detector))

    def greet(self) -> None:
        """Let the real lineage say whether this server is the one it knew."""
        if self._rollback_detector and self._greeted != self.server.epoch:
            greeting = self._rollback_detector.check_server(
                cast("AbstractConnection", _Connection(self.server))
            )
            try:
                greeting.send(None)
            except StopIteration:
                self._greeted = self.server.epoch

    @property
    def connection_pool(self) -> "Pool":
        """The connections."""
        return Pool()

    async def run(self, commands: Commands, *, transaction: bool = False) -> list[Any]:
        """Have the commands done, in order."""
        self.machine.check()
        results = await Call(self, commands, transaction=transaction).future
        self.machine.check()
        self.server.faults += any(isinstance(each, RedisError) for each in results)
        return results

    def pipeline(self, transaction: bool = True) -> "Pipeline":
        """Return commands to be sent together."""
        return Pipeline(self, transaction=transaction)

    async def evalsha(self, sha: str, count: int, *keys_and_args: Any) -> Any:
        """Call a script by its digest."""
        (result,) = first_error_raised(
            await self.run(
                [(SCRIPTS[sha], (list(keys_and_args[:count]), keys_and_args[count:]), {})]
            )
        )
        return result

    def __getattr__(self, name: str) -> Any:
        async def command(*args: Any, **options: Any) -> Any:
            (result,) = first_error_raised(await self.run([(name, args, options)]))
            return result

        return command


def first_error_raised(results: list[Any]) -> list[Any]:
    """Return the results, if none is an error.

    Raises:
        RedisError: the first error.
    """
    for result in results:
        if isinstance(result, RedisError):
            raise result
    return results


class Pool:
    """A pool whose connections end by themselves: at a cut of the server."""

    async def disconnect(self) -> None:
        """Leave the connections as they are."""


class Pipeline:
    """Commands sent together."""

    def __init__(self, twin: RedisTwin, *, transaction: bool) -> None:
        self.commands: list[tuple[str, tuple[Any, ...], Mapping[str, Any]]] = []
        self._twin = twin
        self._transaction = transaction

    def evalsha(self, sha: str, count: int, *keys_and_args: Any) -> "Pipeline":
        """Call a script by its digest."""
        args = (list(keys_and_args[:count]), keys_and_args[count:])
        self.commands.append((SCRIPTS[sha], args, {}))
        return self

    def __getattr__(self, name: str) -> Any:
        def command(*args: Any, **options: Any) -> "Pipeline":
            self.commands.append((name, args, options))
            return self

        return command

    async def execute(self, raise_on_error: bool = True) -> list[Any]:
        """Have them done; nothing is asked where there are none."""
        results = (
            await self._twin.run(self.commands, transaction=self._transaction)
            if self.commands
            else []
        )
        return first_error_raised(results) if raise_on_error else results


class _Connection:
    """As much of a connection as a lineage asks."""

    def __init__(self, server: Server) -> None:
        self._server = server

    def repr_pieces(self) -> list[tuple[str, str | int]]:
        return [("host", "twin"), ("port", 6379)]

    async def on_connect_check_health(self, check_health: bool = True) -> None:
        pass

    async def send_command(self, *args: str, check_health: bool = True) -> None:
        pass

    async def read_response(self) -> str:
        return f"# Server\r\nrun_id:{self._server.keyspace.run_id}\r\n"
