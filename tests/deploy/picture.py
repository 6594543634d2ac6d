"""What the dashboard shows of a real run, in one picture: ``python -m tests.deploy.picture dashboard.png``.

Needs Prometheus and matplotlib, which is no dependency of this project: ``pip install --target FOLDER matplotlib``,
``PYTHONPATH=FOLDER``. Grafana draws more beautifully; this is to see whether the panels say what they should.
"""

import argparse
import asyncio
import math
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from tests.deploy.dashboard import PANELS, VARIABLES, shown
from tests.deploy.eventful import Eventful, eventful
from tests.end_to_end.processes import wait_until

SECONDS: Final = 90.0
COLORS: Final = {"green": "#3a9c4f", "yellow": "#c99a06", "red": "#d03b3b", "transparent": "none"}
INCHES: Final = (1.0, 0.42)
"""Of one unit of Grafana's grid: width, height."""

Series = tuple[str, list[float], list[float]]
"""Legend, times, values."""


async def run(seconds: float) -> dict[str, list[Series]]:
    """Return what each panel shows of an eventful run."""
    with tempfile.TemporaryDirectory() as folder:
        async with eventful(Path(folder), settle=4, rounds=8) as scene:
            await wait_until(scene.prometheus.is_scraping, 60)
            began = time.time()
            await scene.is_verified()
            await asyncio.sleep(seconds / 6)
            await scene.suffers(pause=seconds / 18)
            await asyncio.sleep(max(0.0, began + seconds - time.time()))
            return await asked(scene, began, time.time())


async def asked(scene: Eventful, began: float, ended: float) -> dict[str, list[Series]]:
    """Ask every panel's queries of that time, by title."""
    variables = {**VARIABLES, "$__range": f"{math.ceil(ended - began)}s"}
    found: dict[str, list[Series]] = {}
    for panel in PANELS:
        for query in shown(panel):
            for each in await scene.prometheus.query_range(query.sent(variables), began, ended, 1):
                at = [when - began for when, _ in each["values"]]
                values = [float(text) for _, text in each["values"]]
                found.setdefault(query.panel, []).append(
                    (legend(query.legend, each["metric"]), at, values)
                )
    return found


def legend(template: str, labels: Mapping[str, str]) -> str:
    """Return a legend as Grafana writes it."""
    for name, value in labels.items():
        template = template.replace(f"{{{{{name}}}}}", value)
    return template


def human(value: float, unit: str) -> str:
    """Return a figure with its unit, short."""
    if math.isnan(value):
        return "–"
    if unit == "percentunit":
        return f"{value:.0%}"
    if unit == "bytes":
        return f"{value / 2**20:.0f} MiB"
    if unit == "s":
        return f"{value * 1000:.3g} ms" if abs(value) < 1 else f"{value:.3g} s"
    return f"{value:.3g}" + {"eps": "/s", "reqps": "/s", "ops": "/s"}.get(unit, "")


def color(steps: Iterable[Mapping[str, Any]], value: float) -> str:
    """Return the colour of a figure, by its thresholds."""
    chosen = "green"
    for step in steps:
        if step["value"] is None or value >= step["value"]:
            chosen = step["color"]
    return COLORS[chosen]


def draw_stat(axes: Any, panel: Mapping[str, Any], series: Sequence[Series]) -> None:
    """Draw the last figures, large."""
    axes.axis("off")
    defaults = panel["fieldConfig"]["defaults"]
    names = {
        str(key): each
        for mapping in defaults.get("mappings", ())
        for key, each in mapping["options"].items()
    }
    for place, (name, _, values) in enumerate(series or [("", [], [math.nan])]):
        text = human(values[-1], defaults["unit"])
        if mapped := names.get(f"{values[-1]:g}"):
            text = mapped["text"]
        x = (place + 0.5) / max(1, len(series))
        axes.text(
            x,
            0.62,
            text,
            ha="center",
            va="center",
            size=17,
            color=color(defaults["thresholds"]["steps"], values[-1]),
        )
        axes.text(x, 0.2, name, ha="center", va="center", size=8, color="#555555")


def draw_lines(axes: Any, panel: Mapping[str, Any], series: Sequence[Series]) -> None:
    """Draw the course of the figures."""
    defaults = panel["fieldConfig"]["defaults"]
    custom, unit = defaults["custom"], defaults["unit"]
    above: dict[float, float] = {}
    below: dict[float, float] = {}
    for name, at, values in series:
        name = name if any(values) else ""  # noqa: PLW2901 - what is 0 all the time needs no legend here
        if custom["drawStyle"] == "bars" or custom["stacking"]["mode"] == "normal":
            bottoms = [
                (above if value >= 0 else below).get(when, 0.0)
                for when, value in zip(at, values, strict=True)
            ]
            axes.bar(at, values, 1.0, bottoms, label=name or None)
            for when, value in zip(at, values, strict=True):
                pile = above if value >= 0 else below
                pile[when] = pile.get(when, 0.0) + (0 if math.isnan(value) else value)
        else:
            axes.plot(at, values, label=name or None, linewidth=1.2)
    top = max(
        (value for _, _, values in series for value in values if not math.isnan(value)), default=0
    )
    for step in defaults["thresholds"]["steps"]:
        if step["value"] and step["color"] == "red" and step["value"] < 5 * top:
            axes.axhline(step["value"], color=COLORS["red"], linestyle="--", linewidth=0.8)
    if custom.get("scaleDistribution", {}).get("type") == "log":
        axes.set_yscale("log")
    elif defaults.get("min") == 0:
        axes.set_ylim(0, 1.25 * max([*above.values(), top], default=1) or 1)
    axes.yaxis.set_major_formatter(lambda value, _: human(value, unit))
    axes.tick_params(labelsize=6)
    axes.grid(alpha=0.3)
    if any(name and any(values) for name, _, values in series):
        axes.legend(fontsize=5, loc="upper left", ncols=2, framealpha=0.6)


def draw(found: Mapping[str, Sequence[Series]], path: Path) -> None:
    """Draw every panel where the dashboard has it."""
    try:
        pyplot = import_module("matplotlib.pyplot")
    except ImportError:
        raise SystemExit(f"{__doc__}") from None
    pyplot.switch_backend("agg")
    height = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in PANELS)
    figure = pyplot.figure(figsize=(24 * INCHES[0] * 0.7, height * INCHES[1]), facecolor="white")
    for panel in PANELS:
        at = panel["gridPos"]
        left, bottom = at["x"] / 24, 1 - (at["y"] + at["h"]) / height
        if panel["type"] == "row":
            figure.text(0.01, bottom + 0.3 / height, panel["title"], size=13, weight="bold")
            continue
        axes = figure.add_axes(
            (left + 0.03, bottom + 0.7 / height, at["w"] / 24 - 0.04, (at["h"] - 1.7) / height)
        )
        axes.set_title(panel["title"], size=8, loc="left")
        (draw_stat if panel["type"] == "stat" else draw_lines)(
            axes, panel, found.get(panel["title"], ())
        )
    figure.savefig(path, dpi=90)


def main() -> None:
    """Run, ask, draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path", type=Path)
    parser.add_argument("--seconds", type=float, default=SECONDS)
    chosen = parser.parse_args()
    draw(asyncio.run(run(chosen.seconds)), chosen.path)


if __name__ == "__main__":
    main()
