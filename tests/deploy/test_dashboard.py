"""Every panel shows something: a real Prometheus, which scrapes a worker, runs its queries."""

import math
from pathlib import Path
from typing import Final

import pytest

from tests.deploy.dashboard import DASHBOARD, PANELS, Query, queries
from tests.deploy.needed import needs, needs_proc
from tests.deploy.prometheus_server import Prometheus
from tests.deploy.promql import wrong
from tests.deploy.scraped import scene
from tests.waiting import wait_until

PROMISE: Final = "that every panel's queries return figures of a worker"


@needs("prometheus", PROMISE)
@needs_proc(PROMISE)
async def test_every_panel_shows_figures(tmp_path: Path) -> None:
    """Of a worker with a past, a refused channel and a small load."""
    async with scene(tmp_path) as running:
        left = list(queries())

        async def have_answers() -> bool:
            left[:] = [query for query in left if not await has_figures(running.prometheus, query)]
            return not left

        await wait_until(have_answers, what=lambda: f"no figures for {left}")
        assert running.worker.is_alive


async def has_figures(prometheus: Prometheus, query: Query) -> bool:
    """Whether a query returns a number now."""
    return any(not math.isnan(value) for _, value in await prometheus.query(query.sent()))


@pytest.mark.parametrize(
    "query", list(queries()), ids=lambda query: f"{query.panel}: {query.legend}"
)
def test_a_query_names_only_what_exists(query: Query) -> None:
    """A panel of a missing metric stays empty, and looks like health."""
    assert wrong(query.sent()) == []


def test_no_zero_is_made_up() -> None:
    """The worker reports a 0 for what never happened; no figure at all is a fault."""
    assert [query for query in queries() if "vector(" in query.expr] == []


def test_every_panel_describes_itself() -> None:
    """A title of its own, a sentence, a unit, thresholds, and the chosen data source."""
    panels = [panel for panel in PANELS if panel["type"] != "row"]
    assert len({panel["title"] for panel in panels}) == len(panels)
    for panel in panels:
        title, defaults = panel["title"], panel["fieldConfig"]["defaults"]
        assert panel["description"].endswith("."), title
        assert defaults["unit"], title
        assert defaults["thresholds"]["steps"], title
        assert {source["datasource"]["uid"] for source in (panel, *panel["targets"])} == {
            "${datasource}"
        }, title


def test_panels_do_not_overlap() -> None:
    """None is beyond the edge; no id appears twice."""
    taken: set[tuple[int, int]] = set()
    for panel in PANELS:
        at = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert at["x"] + at["w"] <= 24, panel["title"]
        assert not taken & cells, panel["title"]
        taken |= cells
    assert len({panel["id"] for panel in PANELS}) == len(PANELS)


def test_rows_come_in_the_order_of_questions() -> None:
    """Whether the counts can be trusted comes first."""
    rows = [panel["title"] for panel in PANELS if panel["type"] == "row"]
    assert rows == ["Can I trust the counts?", "Live", "PubNub", "Redis", "Process"]


def test_variables_choose_source_job_and_instance() -> None:
    """So that the file fits any Grafana."""
    assert [variable["name"] for variable in DASHBOARD["templating"]["list"]] == [
        "datasource",
        "job",
        "instance",
    ]
    assert DASHBOARD["uid"] == "reaction-tally"
