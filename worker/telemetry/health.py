"""Health as named checks. A check returns what is wrong, or nothing."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

CHECK_SECONDS: Final = 2.0

Check = Callable[[], Awaitable[str | None]]
"""Returns what is wrong, in a sentence; None if nothing is."""


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
