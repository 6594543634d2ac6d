"""``tally emulator``: a PubNub for one laptop."""

import asyncio
import signal
import sys
from collections.abc import Sequence

import typer

from worker.cli.faults import fault_rates
from worker.cli.interrupts import finish
from worker.emulator import Emulator
from worker.errors import ConfigurationError
from worker.telemetry.logs import configure


def serve_emulator(host: str, port: int, seed: int, faults: Sequence[str]) -> None:
    """Serve the endpoints of PubNub until a signal comes; print the address."""
    configure(level="error")  # the HTTP server logs each request that failed
    rates = fault_rates(faults)
    finish(_serve(Emulator(host=host, port=port, seed=seed, faults=rates)))


async def _serve(emulator: Emulator) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    try:
        async with emulator:
            typer.echo(f"PUBNUB_ORIGIN={emulator.origin} PUBNUB_TLS=false")
            sys.stdout.flush()
            await stop.wait()
    except OSError as error:
        raise ConfigurationError(f"{error}. Choose another with --port.") from None
