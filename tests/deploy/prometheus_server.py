"""A real Prometheus, as a child on loopback: scrapes every few seconds, and evaluates rules if it is given some."""

import asyncio
import json
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Self

import aiohttp

from tests.end_to_end.processes import wait_until
from tests.redis_server import free_port

BINARY: Final = shutil.which("prometheus")
MISSING: Final = (
    "no prometheus in the path (Debian: apt-get install --no-install-recommends prometheus)"
)

Sample = tuple[dict[str, str], float]
"""Labels, and the value."""


def hurried(rules: str, wait: str = "1s") -> str:
    """Return alerting rules that wait no longer than that before they fire, for whoever has no three minutes."""
    return re.sub(r"^( +for: ).*$", rf"\g<1>{wait}", rules, flags=re.MULTILINE)


class Prometheus:
    """One server in a folder of its own, for as long as its `async with` block lasts.

    ``targets`` are addresses (host:port) by the name of their job; ``rules`` the text of a file of rules. A scrape may
    take as long as there is between two, ``scrape_seconds``; the first comes some five seconds after the start.
    """

    def __init__(
        self,
        folder: Path,
        targets: Mapping[str, Sequence[str]],
        rules: str | None = None,
        scrape_seconds: int = 1,
    ) -> None:
        self._scrape_seconds = scrape_seconds
        self._folder = folder
        self._targets = targets
        self._rules = rules
        self._process: subprocess.Popen[bytes] | None = None
        self._session: aiohttp.ClientSession | None = None
        self.url = ""

    async def __aenter__(self) -> Self:
        self._process = self._started()
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10))
        try:
            await wait_until(self._is_ready, 60, what=self._log)
        except BaseException:
            await self.end()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.end()

    async def end(self) -> None:
        """End the server; its data is of no further use."""
        if self._session:
            await self._session.close()
        if self._process:
            self._process.kill()
            await asyncio.to_thread(self._process.wait)

    async def query(self, promql: str) -> list[Sample]:
        """Return the instant vector (or the scalar) that a query gives now.

        Raises:
            ValueError: it is no query.
        """
        told = await self._ask("query", query=promql)
        if told["resultType"] == "scalar":
            return [({}, float(told["result"][1]))]
        return [(each["metric"], float(each["value"][1])) for each in told["result"]]

    async def query_range(self, promql: str, start: float, end: float, step: float) -> list[Any]:
        """Return the series of a query: each ``{"metric": labels, "values": [[time, text], …]}``."""
        told = await self._ask(
            "query_range", query=promql, start=str(start), end=str(end), step=str(step)
        )
        return list(told["result"])

    async def alerts(self) -> dict[str, str]:
        """Return the names of the alerts that are pending or firing, and which of the two (firing, where both)."""
        found: dict[str, str] = {}
        for alert in (await self._ask("alerts"))["alerts"]:
            name, state = alert["labels"]["alertname"], alert["state"]
            found[name] = state if found.get(name) != "firing" else "firing"
        return found

    async def is_scraping(self) -> bool:
        """Whether every target has been scraped with success."""
        ups = await self.query("up")
        return len(ups) == sum(map(len, self._targets.values())) and all(
            value == 1 for _, value in ups
        )

    async def _ask(self, what: str, **query: str) -> Any:
        assert self._session
        async with self._session.get(f"{self.url}/api/v1/{what}", params=query) as response:
            body = await response.json()
        if body["status"] != "success":
            raise ValueError(f"{query}: {body['error']}")
        return body["data"]

    async def _is_ready(self) -> bool:
        assert self._session
        assert self._process
        assert self._process.poll() is None, self._log()
        try:
            async with self._session.get(f"{self.url}/-/ready") as response:
                return response.status == 200
        except (aiohttp.ClientError, TimeoutError):
            return False

    def _log(self) -> str:
        return (self._folder / "log").read_text()[-2000:]

    def _started(self) -> subprocess.Popen[bytes]:
        assert BINARY, MISSING
        self._folder.mkdir(parents=True, exist_ok=True)
        address = f"127.0.0.1:{free_port()}"
        self.url = f"http://{address}"
        options = {
            "config.file": self._configured(),
            "storage.tsdb.path": self._folder / "data",
            "web.listen-address": address,
            "log.level": "warn",
        }
        command = [BINARY, *(f"--{name}={value}" for name, value in options.items())]
        with (self._folder / "log").open("wb") as log:
            return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def _configured(self) -> Path:
        """Write the configuration (JSON is YAML) and the rules; return where."""
        if self._rules:
            (self._folder / "rules.yml").write_text(self._rules, encoding="utf-8")
        config = {
            "global": {"scrape_interval": f"{self._scrape_seconds}s", "evaluation_interval": "1s"},
            "rule_files": ["rules.yml"] if self._rules else [],
            "scrape_configs": [
                {"job_name": job, "static_configs": [{"targets": list(targets)}]}
                for job, targets in self._targets.items()
            ],
        }
        path = self._folder / "prometheus.yml"
        path.write_text(json.dumps(config), encoding="utf-8")
        return path
