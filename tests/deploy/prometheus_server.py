"""A real Prometheus, as a child on loopback, that scrapes and evaluates rules."""

import asyncio
import json
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final, Self

import aiohttp

from tests.redis_server import free_port
from tests.waiting import wait_until

BINARY: Final = shutil.which("prometheus")
MISSING: Final = (
    "no prometheus in the path (Debian: apt-get install --no-install-recommends prometheus)"
)

Sample = tuple[dict[str, str], float]
"""Labels, and the value."""


def hurried(rules: str, wait: str = "1s") -> str:
    """Return alerting rules that wait no longer than that before they fire."""
    return re.sub(r"^( +for: ).*$", rf"\g<1>{wait}", rules, flags=re.MULTILINE)


_MILLISECONDS: Final = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_DURATION: Final = r"(?:[0-9]+[smhd])+"
_TIMES: Final = re.compile(
    rf"^ +for: {_DURATION}$|\[{_DURATION}(?::{_DURATION})?\]|offset {_DURATION}", re.MULTILINE
)


def sped_up(rules: str, times: int) -> str:
    """Return alerting rules in whose time so many seconds pass in one: waits and ranges.

    A number of seconds in a query stays: it is compared with a real age.
    """
    shorter = partial(_shortened, times)
    return _TIMES.sub(lambda found: re.sub(_DURATION, shorter, found[0]), rules)


def _shortened(times: int, found: re.Match[str]) -> str:
    parts = re.findall(r"([0-9]+)([smhd])", found[0])
    milliseconds = sum(int(number) * _MILLISECONDS[unit] for number, unit in parts)
    return f"{milliseconds // times}ms"


class Prometheus:
    """One server in a folder of its own, for as long as its `async with` block lasts.

    ``targets`` are addresses (host:port) by the name of their job; ``rules`` is the text of a file
    of rules. The first scrape comes some five seconds after the start.
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
            await wait_until(self._is_ready, what=self._log)
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
        """Return the instant vector or the scalar of a query.

        Raises:
            ValueError: Prometheus refuses the query.
        """
        answer = await self._ask("query", query=promql)
        if answer["resultType"] == "scalar":
            return [({}, float(answer["result"][1]))]
        return [(sample["metric"], float(sample["value"][1])) for sample in answer["result"]]

    async def alerts(self) -> dict[str, str]:
        """Return alert → ``pending`` or ``firing``; firing if it is both."""
        states: dict[str, str] = {}
        for alert in (await self._ask("alerts"))["alerts"]:
            name = alert["labels"]["alertname"]
            if states.get(name) != "firing":
                states[name] = alert["state"]
        return states

    async def is_scraping(self) -> bool:
        """Whether every target has been scraped with success."""
        targets = sum(map(len, self._targets.values()))
        ups = [value for _, value in await self.query("up")]
        return ups == [1.0] * targets

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
