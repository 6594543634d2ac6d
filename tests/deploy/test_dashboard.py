"""Every panel shows something: its queries are run on a real Prometheus that scrapes a real worker."""

import math
from pathlib import Path
from typing import Final

import pytest

from tests.deploy.dashboard import DASHBOARD, PANELS, Query, queries
from tests.deploy.eventful import eventful
from tests.deploy.needed import needs, needs_proc
from tests.deploy.prometheus_server import Prometheus
from tests.deploy.promql import wrong
from tests.end_to_end.processes import wait_until

PROMISE: Final = "that every panel's queries return figures of a worker"


@needs("prometheus", PROMISE)
@needs_proc(PROMISE)
async def test_every_query_of_every_panel_returns_figures(tmp_path: Path) -> None:
    """Of a worker to which all of it has happened."""
    async with eventful(tmp_path, settle=2, rounds=1) as scene:
        await scene.suffers()
        await scene.is_verified()
        left = list(queries())

        async def have_answers() -> bool:
            left[:] = [query for query in left if not await has_figures(scene.prometheus, query)]
            return not left

        await wait_until(have_answers, 60, what=lambda: f"nothing in {left}")
        assert scene.worker.is_alive


async def has_figures(prometheus: Prometheus, query: Query) -> bool:
    """Whether a query returns a number now."""
    return any(not math.isnan(value) for _, value in await prometheus.query(query.sent()))


@pytest.mark.parametrize(
    "query", list(queries()), ids=lambda query: f"{query.panel}: {query.legend}"
)
def test_a_query_names_what_exists(query: Query) -> None:
    """A panel of what nobody reports stays empty, and looks like health."""
    assert wrong(query.sent()) == []


def test_no_zero_is_made_up() -> None:
    """What never happened is a 0 that the worker tells; where there is nothing at all, something is wrong."""
    assert [query for query in queries() if "vector(" in query.expr] == []


def test_every_panel_says_what_it_shows() -> None:
    """A title of its own, a sentence, a unit, thresholds, and the data source that was chosen."""
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


def test_panels_lie_beside_each_other() -> None:
    """No two at one place, none beyond the edge, no id twice."""
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


def test_the_rows_answer_the_questions_in_their_order() -> None:
    """Whether the counts can be trusted comes first."""
    rows = [panel["title"] for panel in PANELS if panel["type"] == "row"]
    assert rows == ["Can I trust the counts?", "Live", "PubNub", "Redis", "Process"]


def test_variables_choose_source_job_and_instance() -> None:
    """So that the file fits any Grafana."""
    assert [each["name"] for each in DASHBOARD["templating"]["list"]] == [
        "datasource",
        "job",
        "instance",
    ]
    assert DASHBOARD["uid"] == "reaction-tally"
