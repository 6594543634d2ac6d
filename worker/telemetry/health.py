"""Health as named checks. A check returns what is wrong, or nothing."""

import asyncio
import http.client
import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

CHECK_SECONDS: Final = 2.0
MAX_ANSWER_BYTES: Final = 65_536

Check = Callable[[], Awaitable[str | None]]
"""Returns what is wrong, in a sentence; None if nothing is."""

FOREIGN_ANSWER_ERRORS: Final = (
    http.client.HTTPException,
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    RecursionError,
)
"""What reading an answer raises that is no worker's."""


async def examine(checks: Mapping[str, Check]) -> dict[str, str | None]:
    """Run all checks at once, each for two seconds at most; return check → what is wrong."""
    results = await asyncio.gather(*map(_run, checks.values()))
    return dict(zip(checks, results, strict=True))


async def _run(check: Check) -> str | None:
    try:
        async with asyncio.timeout(CHECK_SECONDS):
            return await check()
    except TimeoutError:
        return f"no answer in {CHECK_SECONDS:g} s"


def as_json(results: Mapping[str, str | None]) -> dict[str, object]:
    """Return ``ok``, and each check by its name, with the reason if it failed."""
    checks = {
        name: {"ok": True} if reason is None else {"ok": False, "reason": reason}
        for name, reason in results.items()
    }
    return {"ok": not any(results.values()), "checks": checks}


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
        return [f"no worker answers at {host}:{port} ({type(error).__name__})"]
    except FOREIGN_ANSWER_ERRORS:
        return [f"what answers at {host}:{port} is no worker"]

    if failures or status == 200:
        return failures
    return [f"answered {status}"]


def _get(host: str, port: int, path: str) -> tuple[int, Any]:
    connection = http.client.HTTPConnection(host, port, timeout=CHECK_SECONDS * 2)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, json.loads(response.read(MAX_ANSWER_BYTES))
    finally:
        connection.close()
