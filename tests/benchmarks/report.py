"""Results as a table, as one JSON document, and beside the baseline."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from rich.table import Table

from tests.benchmarks.harness import Benchmark, Measured

BASELINE: Final = Path(__file__).with_name("baseline.json")

Results = Mapping[str, Sequence[Measured]]
Baseline = Mapping[str, Mapping[str, float]]


def document(results: Results) -> dict[str, dict[str, dict[str, object]]]:
    """Return benchmark → line → median, spread, values, unit, target and whether it is reached."""
    return {
        name: {
            measured.line.key: {
                "what": measured.line.what,
                "unit": measured.line.unit,
                "median": measured.median,
                "low": min(measured.values),
                "high": max(measured.values),
                "values": list(measured.values),
                "target": measured.target or None,
                "reached": measured.is_reached,
            }
            for measured in lines
        }
        for name, lines in results.items()
    }


def table(benchmark: Benchmark, lines: Sequence[Measured], baseline: Baseline) -> Table:
    """Return the results of one benchmark as a table."""
    shown = Table(
        title=benchmark.name, caption=benchmark.work, title_justify="left", caption_justify="left"
    )
    for heading in ("what", "median", "spread", "target", "baseline"):
        shown.add_column(heading, justify="left" if heading == "what" else "right")
    before = baseline.get(benchmark.name, {})
    for measured in lines:
        color = "[green]" if measured.is_reached else "[red]"
        shown.add_row(
            measured.line.what,
            f"{number(measured.median)} {measured.line.unit}",
            f"{number(min(measured.values))} – {number(max(measured.values))}",
            measured.target and color + measured.target,
            change(measured, before.get(measured.line.key)),
        )
    return shown


def change(measured: Measured, before: float | None) -> str:
    """Return the change of a median since the baseline."""
    return f"{100 * (measured.median / before - 1):+.0f} %" if before else ""


def number(value: float) -> str:
    """Return a number with as many digits as matter."""
    size = abs(value)
    return f"{value:,.0f}" if size >= 1000 else f"{value:.1f}" if size >= 100 else f"{value:.3g}"


def load(path: Path = BASELINE) -> Baseline:
    """Return benchmark → line → median, as recorded."""
    baseline: Baseline = json.loads(path.read_text(encoding="utf-8"))
    return baseline


def save(results: Results, path: Path = BASELINE) -> None:
    """Record the medians; benchmarks that were not run keep theirs.

    A benchmark that was run keeps no line that it has no more.
    """
    medians = {
        name: {m.line.key: float(f"{m.median:.4g}") for m in lines}
        for name, lines in results.items()
    }
    path.write_text(
        json.dumps({**load(path), **medians}, indent=1, sort_keys=True) + "\n", encoding="utf-8"
    )
