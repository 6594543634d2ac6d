"""What was measured, told: a table on the terminal, one JSON document, and the change against the baseline."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from rich.table import Table

from tests.benchmarks.harness import Benchmark, Difference, Measured

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
    """Return what was measured of one benchmark as a table."""
    shown = Table(
        title=benchmark.name, caption=benchmark.work, title_justify="left", caption_justify="left"
    )
    for heading in ("what", "median", "spread", "target", "baseline"):
        shown.add_column(heading, justify="left" if heading == "what" else "right")
    before = baseline.get(benchmark.name, {})
    for measured in lines:
        unit = measured.line.unit
        spread = f"{number(min(measured.values))} – {number(max(measured.values))}"
        reached = (
            measured.target and ("[green]" if measured.is_reached else "[red]") + measured.target
        )
        shown.add_row(
            measured.line.what,
            f"{number(measured.median)} {unit}",
            spread,
            reached,
            change(measured, before.get(measured.line.key)),
        )
    return shown


def change(measured: Measured, before: float | None) -> str:
    """Return by how much a median has changed since the baseline was recorded; of a difference, in its own unit."""
    if not before:
        return ""
    if isinstance(measured.line, Difference):
        return f"{measured.median - before:+.2g} {measured.line.unit}"
    return f"{100 * (measured.median / before - 1):+.0f} %"


def number(value: float) -> str:
    """Return a number with as many digits as tell something."""
    size = abs(value)
    return f"{value:,.0f}" if size >= 1000 else f"{value:.1f}" if size >= 100 else f"{value:.3g}"


def load(path: Path = BASELINE) -> Baseline:
    """Return benchmark → line → median, as recorded; nothing if nothing was."""
    try:
        return {
            name: dict(lines)
            for name, lines in json.loads(path.read_text(encoding="utf-8")).items()
        }
    except FileNotFoundError:
        return {}


def save(results: Results, path: Path = BASELINE) -> None:
    """Record the medians, beside those of benchmarks that were not run."""
    medians = {
        name: {m.line.key: float(f"{m.median:.4g}") for m in lines}
        for name, lines in results.items()
    }
    path.write_text(
        json.dumps({**load(path), **medians}, indent=1, sort_keys=True) + "\n", encoding="utf-8"
    )
