"""The alerts of a drill, as a real Prometheus evaluates them; without one, nothing is tried."""

import time
from pathlib import Path
from typing import TYPE_CHECKING

from tests.waiting import wait_until

if TYPE_CHECKING:
    from tests.deploy.prometheus_server import Prometheus

RULES = Path(__file__).parents[2] / "deploy" / "prometheus" / "alerts.yml"
FIRED_TODAY = 'count by (alertname) (count_over_time(ALERTS{alertstate="firing"}[1h]))'


class Alerts:
    """Waits for alerts to fire and to clear, and says so in the words of a step's line."""

    def __init__(self) -> None:
        self.prometheus: Prometheus | None = None
        """None: no alert is tried."""

    async def fires(self, alert: str) -> str:
        """Wait until an alert fires."""
        if not self.prometheus:
            return ""
        began = time.monotonic()
        await wait_until(lambda: self._is_firing(alert))
        return f"; {alert} fired after {time.monotonic() - began:.1f} s"

    async def clears(self, alert: str) -> str:
        """Wait until an alert fires no longer."""
        if not self.prometheus:
            return ""

        async def is_clear() -> bool:
            return not await self._is_firing(alert)

        await wait_until(is_clear)
        return ", and cleared"

    async def summary(self) -> str:
        """Wait until no page fires; say which alerts fired, and which tickets still do."""
        prometheus = self.prometheus
        if not prometheus:
            return ""

        async def are_pages_clear() -> bool:
            return not await prometheus.query('ALERTS{alertstate="firing", severity="page"}')

        await wait_until(are_pages_clear)
        fired = [labels["alertname"] for labels, _ in await prometheus.query(FIRED_TODAY)]
        states = await prometheus.alerts()
        left = sorted(name for name, state in states.items() if state == "firing")
        return (
            f"; fired today: {', '.join(sorted(fired))}; no page fires; "
            f"tickets: {', '.join(left) or 'none'}"
        )

    async def _is_firing(self, alert: str) -> bool:
        assert self.prometheus
        return (await self.prometheus.alerts()).get(alert) == "firing"
