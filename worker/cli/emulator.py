"""The emulator of ``tally emulator``: its faults, and its process."""

import asyncio
import re
import signal
import sys
from collections.abc import Sequence
from typing import Final

import typer

from worker.emulator import FAULT_NAMES, Emulator
from worker.errors import ConfigurationError

REACTION_PATH: Final = "/v1/message-actions/demo/channel/room/message/17600000001728660"
REACTION: Final = '{"type":"reaction","value":"👍"}'


def fault_rates(faults: Sequence[str] | None) -> dict[str, float]:
    """Return name → rate of texts such as ``late=0.2``.

    Raises:
        ConfigurationError: a name or a rate is wrong; the sentence lists the names.
    """
    return dict(map(_fault_rate, faults or ()))


def _fault_rate(text: str) -> tuple[str, float]:
    name, _, rate = text.partition("=")
    if name not in FAULT_NAMES:
        names = ", ".join(sorted(FAULT_NAMES))
        raise ConfigurationError(f"--fault {text!r}: no such fault. There are: {names}.")

    if not re.fullmatch(r"0?\.[0-9]+|[01](\.0*)?", rate):
        raise ConfigurationError(
            f"--fault {text!r}: the rate is a number from 0 to 1, as in {name}=0.2."
        )
    return name, float(rate)


def reacting_command(origin: str) -> str:
    """Return a command line that adds a reaction, for people to try."""
    url = f"http://{origin}{REACTION_PATH}?uuid=ana"
    return f"curl -d '{REACTION}' '{url}'"


async def serve(emulator: Emulator) -> None:
    """Print the address, and serve the endpoints of PubNub until a signal comes.

    A second line reacts, if somebody pastes it into a shell.

    Raises:
        ConfigurationError: the port is taken.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    try:
        async with emulator:
            typer.echo(f"PUBNUB_ORIGIN={emulator.origin} PUBNUB_TLS=false")
            typer.echo(reacting_command(emulator.origin))
            sys.stdout.flush()
            await stop.wait()
    except OSError as error:
        raise ConfigurationError(f"{error}. Choose another with --port.") from None
