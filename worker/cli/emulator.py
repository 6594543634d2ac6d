"""The emulator of ``tally emulator``: its faults, and its process."""

import asyncio
import re
import signal
import sys
from collections.abc import Sequence
from typing import Final

import typer

from worker.emulator import DELETE, FAULT_NAMES, READ, WRITE, Emulator, Grant
from worker.errors import ConfigurationError

SUBSCRIBE_KEY: Final = "demo"
"""Any key is a keyset of its own; this is the one of the printed line that reacts."""
PUBLISH_KEY: Final = "demo"
SECRET_KEY: Final = "sec-c-demo"  # noqa: S105 - it protects nothing: the emulator prints it
SHOWN_GRANT: Final = Grant(
    minutes=1440,
    uuid="ana",
    channels={"room": READ | WRITE | DELETE},
)
"""What the token in the printed line permits."""
REACTION_PATH: Final = f"/v1/message-actions/{SUBSCRIBE_KEY}/channel/room/message/17600000001728660"
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


def settings_line(emulator: Emulator) -> str:
    """Return the settings with which a worker follows this emulator."""
    settings = [
        f"PUBNUB_ORIGIN={emulator.origin}",
        "PUBNUB_TLS=false",
        f"PUBNUB_SUBSCRIBE_KEY={SUBSCRIBE_KEY}",
    ]
    if emulator.state.access.is_on:
        settings += [
            f"PUBNUB_PUBLISH_KEY={PUBLISH_KEY}",
            f"PUBNUB_SECRET_KEY={SECRET_KEY}",
        ]
    return " ".join(settings)


def reacting_command(emulator: Emulator) -> str:
    """Return a command line that adds a reaction, for people to try."""
    url = f"http://{emulator.origin}{REACTION_PATH}?uuid=ana"
    access = emulator.state.access
    if access.is_on:
        url += f"&auth={access.grant(SHOWN_GRANT)}"
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
            typer.echo(settings_line(emulator))
            typer.echo(reacting_command(emulator))
            sys.stdout.flush()
            await stop.wait()
    except OSError as error:
        raise ConfigurationError(f"{error.strerror}. Choose another with --port.") from None
