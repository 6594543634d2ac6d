"""Manifests for the Prometheus operator; ``make manifests`` writes them.

The alerts have one source, ``deploy/prometheus/alerts.yml``.
Its text is taken over with its reasons.
"""

from pathlib import Path
from textwrap import indent
from typing import Final

import yaml

ROOT: Final = Path(__file__).parents[1]
ALERTS: Final = ROOT / "deploy/prometheus/alerts.yml"
CONFIG: Final = ROOT / "deploy/prometheus/prometheus.yml"
FOLDER: Final = ROOT / "deploy/kubernetes"
_RULE: Final = """\
# For the Prometheus operator. Made from deploy/prometheus/alerts.yml: make manifests
# Its Prometheus may want a label here, such as `release`: give it in an overlay.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: tally
  labels: {app.kubernetes.io/name: tally}
spec:
"""
_MONITOR: Final = """\
# For the Prometheus operator. Made from deploy/prometheus/prometheus.yml: make manifests
# Its Prometheus may want a label here, such as `release`: give it in an overlay.
# Each pod of the worker is scraped, ready or not. Pods of jobs serve nothing.
apiVersion: monitoring.coreos.com/v1
kind: PodMonitor
metadata:
  name: tally
  labels: {app.kubernetes.io/name: tally}
spec:
  selector:
    matchLabels: {app.kubernetes.io/name: tally, app.kubernetes.io/component: worker}
  podMetricsEndpoints:
    - port: http
      path: /metrics
"""


def prometheus_rule() -> str:
    """Return the alerts as a PrometheusRule."""
    text = ALERTS.read_text(encoding="utf-8")
    groups = text[text.index("groups:") :]
    return _RULE + indent(groups, "  ")


def pod_monitor() -> str:
    """Return the scrape of the worker as a PodMonitor."""
    config = yaml.safe_load(CONFIG.read_text(encoding="utf-8"))
    (job,) = config["scrape_configs"]
    interval = config["global"]["scrape_interval"]
    timeout = job.get("scrape_timeout", "10s")
    return f"{_MONITOR}      interval: {interval}\n      scrapeTimeout: {timeout}\n"


FILES: Final = {
    "prometheusrule.yaml": prometheus_rule,
    "podmonitor.yaml": pod_monitor,
}
"""File in ``deploy/kubernetes`` → what writes it."""

if __name__ == "__main__":
    for name, write in FILES.items():
        (FOLDER / name).write_text(write(), encoding="utf-8")
