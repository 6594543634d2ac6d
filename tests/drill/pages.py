"""A worker's own pages, as a probe and a Prometheus read them."""

from collections.abc import Mapping

import aiohttp

from tests.end_to_end.processes import Child

Figures = Mapping[str, float]
"""What ``/metrics`` says, by a series' name and labels as they stand there."""


async def page(child: Child, path: str) -> tuple[int, str]:
    """Return status and text of a page."""
    listens = child.entries("http_listens")
    assert listens, f"it has no pages: {child.err[-3000:]}"
    url = f"http://{listens[-1]['host']}:{listens[-1]['port']}{path}"
    async with aiohttp.request("GET", url, timeout=aiohttp.ClientTimeout(total=10)) as response:
        return response.status, await response.text()


async def is_ready(child: Child) -> bool:
    """Tell whether the worker says that its counts can be relied on."""
    status, _ = await page(child, "/readyz")
    return status == 200


async def figures(child: Child) -> Figures:
    """Return every figure of the worker's."""
    status, text = await page(child, "/metrics")
    assert status == 200, text
    lines = (line.rpartition(" ") for line in text.splitlines() if not line.startswith("#"))
    return {series: float(value) for series, _, value in lines}


def total(told: Figures, name: str) -> float:
    """Return the sum of all series of a name."""
    return sum(value for series, value in told.items() if series.partition("{")[0] == name)
