"""Health as named checks: each says what is wrong, or nothing."""

import asyncio
import http.client
import json
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from worker.telemetry.http import Page

CHECK_SECONDS: Final = 2.0

Check = Callable[[], Awaitable[str | None]]
"""Returns what is wrong, in a sentence; None if nothing is."""


async def examine(checks: Mapping[str, Check]) -> dict[str, str | None]:
    """Return what each check found, all asked at once, none for longer than two seconds."""

    async def one(check: Check) -> str | None:
        try:
            async with asyncio.timeout(CHECK_SECONDS):
                return await check()
        except TimeoutError:
            return f"no answer in {CHECK_SECONDS:g} s"

    return dict(zip(checks, await asyncio.gather(*map(one, checks.values())), strict=True))


def health_page(found: Mapping[str, str | None]) -> "Page":
    """Return the checks as JSON: 200 if all are well, else 503."""
    from worker.telemetry.http import json_page  # noqa: PLC0415 - a server, which nobody needs who only asks

    return json_page(as_json(found), 503 if any(found.values()) else 200)


def as_json(found: Mapping[str, str | None]) -> dict[str, Any]:
    """Return what the checks found: ``ok``, and each check by its name, with the reason if it fails."""
    checks = {
        name: {"ok": wrong is None, **({"reason": wrong} if wrong else {})}
        for name, wrong in found.items()
    }
    return {"ok": not any(found.values()), "checks": checks}


def ask(host: str, port: int, path: str) -> list[str]:
    """Return what is wrong with the worker that listens there: a sentence each, none if it is well."""
    connection = http.client.HTTPConnection(host, port, timeout=CHECK_SECONDS * 2)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        told = json.loads(response.read(1 << 16))
        wrong = [
            f"{name}: {check['reason']}"
            for name, check in told["checks"].items()
            if not check["ok"]
        ]
    except OSError as error:
        return [f"no worker answers at {host}:{port} ({type(error).__name__})"]
    except (
        http.client.HTTPException,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        RecursionError,
    ):
        return [f"what answers at {host}:{port} is no worker"]
    finally:
        connection.close()
    return wrong or ([] if response.status == 200 else [f"answered {response.status}"])
