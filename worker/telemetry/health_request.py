"""Asks a worker for its health.

Containers do that every half minute, so this module loads little.
"""

import http.client
import json
from typing import Any, Final

ANSWER_SECONDS: Final = 4.0
"""Twice the time that a check may take."""
MAX_ANSWER_BYTES: Final = 65_536

FOREIGN_ANSWER_ERRORS: Final = (
    http.client.HTTPException,
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    RecursionError,
)
"""What reading an answer raises that is no worker's."""


def request_health(host: str, port: int, path: str) -> list[str]:
    """Ask the worker at an address for its health.

    Returns:
        A sentence for each failed check; an empty list if the worker is healthy.
    """
    try:
        status, document = _get(host, port, path)
        checks = document["checks"].items()
        failures = [f"{name}: {check['reason']}" for name, check in checks if not check["ok"]]
    except OSError as error:
        hint = "Is tally run running, with the same TALLY_HTTP?"
        return [f"no worker answers at {host}:{port} ({error}). {hint}"]
    except FOREIGN_ANSWER_ERRORS:
        return [f"what answers at {host}:{port} is no worker"]

    if failures or status == 200:
        return failures
    return [f"answered {status}"]


def _get(host: str, port: int, path: str) -> tuple[int, Any]:
    connection = http.client.HTTPConnection(host, port, timeout=ANSWER_SECONDS)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, json.loads(response.read(MAX_ANSWER_BYTES))
    finally:
        connection.close()
