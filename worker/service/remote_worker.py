"""A worker in another process, as far as its pages tell."""

import json
from collections.abc import Iterable
from itertools import chain
from types import TracebackType
from typing import Any, Final, Self

import aiohttp
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from worker.board.plots import Counters
from worker.telemetry.address import Address

ANSWER_SECONDS: Final = 2.0
FAILURES: Final = (aiohttp.ClientError, OSError, TimeoutError, ValueError, LookupError)
"""What asking raises if no worker answers, or something else."""
FOREIGN: Final = (*FAILURES, TypeError, AttributeError)


class RemoteWorker:
    """The worker at an address. It may be away, or of another namespace."""

    def __init__(self, address: Address | None, namespace: str) -> None:
        """``address`` is None if workers have no pages."""
        self._address = address
        self._namespace = namespace
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        timeout = aiohttp.ClientTimeout(total=ANSWER_SECONDS)
        self._session = aiohttp.ClientSession(timeout=timeout)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._session:
            await self._session.close()

    async def status(self) -> dict[str, Any]:
        """Return ``/status``; empty if no worker of this namespace answers."""
        try:
            status: dict[str, Any] = json.loads(await self._get("/status"))
            settings = {item["name"]: item["value"] for item in status["settings"]}
            is_ours = settings["TALLY_NAMESPACE"] == self._namespace
        except FOREIGN:
            return {}
        return status if is_ours else {}

    async def counters(self) -> Counters | None:
        """Return the counters of the worker; None if none of this namespace answers."""
        try:
            metrics = list(text_string_to_metric_families(await self._get("/metrics")))
        except FOREIGN:
            return None
        return Counters.of(metrics) if self._namespace in _namespaces(metrics) else None

    async def _get(self, path: str) -> str:
        if not (self._session and self._address and self._address.port):
            raise LookupError("no worker has pages")
        host = Address(self._address.reachable_host, self._address.port)
        async with self._session.get(f"http://{host}{path}", raise_for_status=True) as answer:
            return await answer.text()


def _namespaces(metrics: Iterable[Metric]) -> set[str]:
    """Return the namespace of the worker that has these metrics."""
    samples = chain.from_iterable(metric.samples for metric in metrics)
    return {
        sample.labels.get("redis_namespace", "")
        for sample in samples
        if sample.name == "tally_build_info"
    }
