"""The dashboard, read: its panels, and their queries as Grafana would send them."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

PATH: Final = Path(__file__).parents[2] / "deploy/grafana/dashboard.json"
DASHBOARD: Final[dict[str, Any]] = json.loads(PATH.read_text(encoding="utf-8"))
PANELS: Final[list[dict[str, Any]]] = DASHBOARD["panels"]

VARIABLES: Final[Mapping[str, str]] = {
    "$job": "tally",
    "$instance": ".+",
    "$__rate_interval": "20s",
    "$__range": "5m",
}
"""What Grafana would put in their places, for a Prometheus that scrapes every second."""


@dataclass(frozen=True, slots=True)
class Query:
    """One query of a panel."""

    panel: str
    expr: str
    legend: str

    def sent(self, variables: Mapping[str, str] = VARIABLES) -> str:
        """Return the query as Prometheus gets it."""
        text = self.expr
        for name, value in variables.items():
            text = text.replace(name, value)
        assert "$" not in text, text
        return text


def shown(panel: Mapping[str, Any]) -> list[Query]:
    """Return the queries of a panel; a row has none."""
    return [
        Query(panel["title"], target["expr"], target["legendFormat"])
        for target in panel.get("targets", ())
    ]


def queries() -> Iterator[Query]:
    """Yield every query of the dashboard."""
    for panel in PANELS:
        yield from shown(panel)
