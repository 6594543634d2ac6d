"""The parts of the demo, started in order and ended in the opposite one."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from worker.demo.child import Child
from worker.demo.plan import Plan
from worker.store.embedded import embedded_server

Say = Callable[[str, str], None]
"""Tells the spectator of a part, and where it is."""


@dataclass(frozen=True, slots=True)
class Processes:
    """All that runs: where PubNub and Redis are, and the processes that must not end."""

    origin: str
    redis_url: str
    children: tuple[Child, ...]


@asynccontextmanager
async def staged(
    plan: Plan, folder: Path, channels: Sequence[str], say: Say
) -> AsyncIterator[Processes]:
    """Run everything in this folder for as long as this is open; nothing is left behind, however it ends.

    Raises:
        ConfigurationError: no Valkey is installed.
        RedisUnfitError: Valkey does not start.
        FatalError: the emulator does not start.
    """
    async with AsyncExitStack() as stack:
        redis_url = await stack.enter_async_context(embedded_server(folder / "valkey"))
        say("Valkey", f"redis-cli -u {redis_url}")

        emulator = await _start(stack, "emulator", _emulator(plan), folder, {})
        told = dict(word.split("=", 1) for word in (await emulator.first_line()).split())
        say("PubNub", f"an emulator at http://{told['PUBNUB_ORIGIN']}, {_faults(plan)}")

        settings = {
            **told,
            "PUBNUB_SUBSCRIBE_KEY": "demo",
            "REDIS_URL": redis_url,
            "TALLY_CHANNELS": ",".join(channels),
            "TALLY_LOG_LEVEL": "warning",
            "TALLY_HTTP": "off",
        }
        worker = await _start(stack, "worker", ["run"], folder, settings)
        say("Worker", f"python -m worker run, process {worker.pid}")
        yield Processes(told["PUBNUB_ORIGIN"], redis_url, (emulator, worker))


async def _start(
    stack: AsyncExitStack, name: str, arguments: list[str], folder: Path, settings: dict[str, str]
) -> Child:
    child = await Child.start(name, arguments, folder, settings)
    stack.push_async_callback(child.end)
    return child


def _emulator(plan: Plan) -> list[str]:
    faults = [f"--fault={name}={rate:.6f}" for name, rate in plan.faults.items()]
    return ["emulator", "--port=0", f"--seed={plan.seed}", *faults]


def _faults(plan: Plan) -> str:
    named = ", ".join(f"{name} {rate:g}" for name, rate in plan.faults.items())
    return f"seed {plan.seed}, " + (f"faults: {named}" if named else "no faults")
