"""The health check of a container, without what other commands load.

An engine runs it every half minute.
What it cannot answer alone is left to the command.
"""

import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from worker.telemetry.address import LOOPBACK, Address

PATHS: Final = {
    ("healthcheck",): "/readyz",
    ("healthcheck", "--live"): "/livez",
}
"""Command line → the page that it asks."""
DEFAULT: Final = Address(LOOPBACK, 8080)


def address_of(environment: Mapping[str, str]) -> Address | None:
    """Return where the worker listens; None if only all settings tell."""
    # Settings are read in any case, such as tally_http.
    names = filter(re.compile("tally_http", re.IGNORECASE).fullmatch, environment)
    if Path(".env").exists() or not {"TALLY_HTTP"}.issuperset(names):
        return None
    text = environment.get("TALLY_HTTP")
    try:
        address = Address.read(text) if text else DEFAULT
    except ValueError:
        return None
    return address if address and address.port else None


def run_quickly(arguments: Sequence[str]) -> int | None:
    """Return the exit code of a plain health check; None for any other command."""
    path = PATHS.get(tuple(arguments))
    address = path and address_of(os.environ)
    if not path or not address:
        return None

    from worker.telemetry.health_request import request_health  # noqa: PLC0415 - only now
    from worker.telemetry.text import escape  # noqa: PLC0415 - only now

    host = address.reachable_host
    failures = request_health(host, address.port, path)
    lines = [*map(escape, failures)] or ["ok"]
    sys.stdout.write("\n".join(lines) + "\n")
    sys.stdout.flush()
    return int(bool(failures))
