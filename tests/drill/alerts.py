"""The alerts of a drill, as a real Prometheus evaluates them; without one, nothing is tried."""

import time
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tests.waiting import wait_until

if TYPE_CHECKING:
    from tests.deploy.prometheus_server import Prometheus

RULES: Final = Path(__file__).parents[2] / "deploy" / "prometheus" / "alerts.yml"
TIMES_FASTER: Final = 12
"""The waits and ranges of the rules are so many times shorter: five minutes are 25 seconds."""
SEEN_SECONDS: Final = 5
"""So soon Prometheus sees what happens: an answer of Redis serves the pages for three seconds."""
FIRED_TODAY: Final = 'count by (alertname) (count_over_time(ALERTS{alertstate="firing"}[1h]))'


class Alerts:
    """Waits for alerts to fire and to clear, and says so in the words of a step's line."""

    def __init__(self) -> None:
        self.prometheus: Prometheus | None = None
        """None: no alert is tried."""
        self.expected: set[str] = set()
        """The alerts that fired when they should."""

    async def fire(self, *alerts: str) -> str:
        """Wait until these alerts fire."""
        if not self.prometheus:
            return ""
        self.expected.update(alerts)
        began = time.monotonic()

        async def are_firing() -> bool:
            states = await self._states()
            return all(states.get(alert) == "firing" for alert in alerts)

        await wait_until(are_firing, what=lambda: f"Expected to fire: {', '.join(alerts)}.")
        return f"; {', '.join(alerts)} fired after {time.monotonic() - began:.1f} s"

    async def clear(self, *alerts: str) -> str:
        """Wait until these alerts neither fire nor are about to."""
        if not self.prometheus:
            return ""

        async def are_clear() -> bool:
            return not (await self._states()).keys() & alerts

        await wait_until(are_clear, what=lambda: f"Expected to clear: {', '.join(alerts)}.")
        return ", and cleared"

    async def stay_silent(self, *alerts: str) -> str:
        """Wait until these alerts would be about to fire, and are not; none may have fired."""
        if not self.prometheus:
            return ""
        seen_at = time.time() + SEEN_SECONDS

        async def is_seen() -> bool:
            assert self.prometheus
            scrapes = await self.prometheus.query("timestamp(up)")
            return all(scraped_at > seen_at for _, scraped_at in scrapes)

        await wait_until(is_seen)
        await self.clear(*alerts)
        fired = await self._fired() & set(alerts)
        assert not fired, f"fired, and should not: {', '.join(fired)}"
        return f"; no {' and no '.join(alerts)}"

    async def summary(self) -> str:
        """Wait until no alert fires; the expected ones fired this day, and no other.

        Raises:
            AssertionError: another alert fired, or an alert does not clear.
        """
        if not self.prometheus:
            return ""

        async def is_quiet() -> bool:
            return "firing" not in (await self._states()).values()

        await wait_until(is_quiet)
        fired = await self._fired()
        assert fired == self.expected, (
            f"fired, and should not: {_listed(fired - self.expected)}; "
            f"did not fire: {_listed(self.expected - fired)}"
        )
        return f"; fired today, as expected, and nothing else: {_listed(fired)}; nothing fires now"

    async def _fired(self) -> set[str]:
        assert self.prometheus
        return {labels["alertname"] for labels, _ in await self.prometheus.query(FIRED_TODAY)}

    async def _states(self) -> dict[str, str]:
        assert self.prometheus
        return await self.prometheus.alerts()


def _listed(alerts: Collection[str]) -> str:
    return ", ".join(sorted(alerts)) or "none"
