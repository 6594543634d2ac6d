"""The rules in a real Prometheus: an alert fires, and clears."""

from pathlib import Path

from tests.deploy.dockerfile import ROOT
from tests.deploy.needed import needs
from tests.deploy.prometheus_server import Prometheus, hurried, sped_up
from tests.deploy.scraped import textfile
from tests.waiting import wait_until

RULES = (ROOT / "deploy/prometheus/alerts.yml").read_text(encoding="utf-8")


@needs("prometheus", "that an alert fires and clears in one that runs")
async def test_an_alert_fires_and_clears(tmp_path: Path) -> None:
    """A version is reported, then none, then one again; no other alert fires."""
    figures = tmp_path / "figures.prom"
    version = 'tally_build_info{version="1.0", redis_namespace="tally"} 1\n'
    figures.write_text(version)
    async with (
        textfile(figures) as worker,
        Prometheus(tmp_path / "prometheus", {"tally": [worker]}, hurried(RULES)) as prometheus,
    ):

        async def fires() -> bool:
            return await prometheus.alerts() == {"TallyDown": "firing"}

        async def is_quiet() -> bool:
            return await prometheus.alerts() == {}

        async def is_seen() -> bool:
            return bool(await prometheus.query("tally_build_info"))

        await wait_until(is_seen, 60)
        figures.write_text("")
        await wait_until(fires, 60)
        figures.write_text(version)
        await wait_until(is_quiet, 60)


def test_hurried_rules_differ_only_in_time() -> None:
    """All else is the same."""
    assert (
        hurried("for: 3m\n  for: 3m\n  expr: up # for: 3m\n", "2s")
        == "for: 3m\n  for: 2s\n  expr: up # for: 3m\n"
    )
    assert "for: 1s" in hurried(RULES)
    assert "for: 3m" not in hurried(RULES)


def test_sped_up_rules_differ_only_in_waits_and_ranges() -> None:
    """Five minutes in twelfths are 25 seconds. Ages in seconds, sums and words stay."""
    rules = "    for: 5m\n  expr: max(a[1h]) > 600 or b[1d:1m] offset 9m # [x] for: 3m\n"
    faster = sped_up(rules, 12)

    assert faster == (
        "    for: 25000ms\n  expr: max(a[300000ms]) > 600"
        " or b[7200000ms:5000ms] offset 45000ms # [x] for: 3m\n"
    )
    assert "for: 3m" not in sped_up(RULES, 12)
