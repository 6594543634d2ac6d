"""The drills in small, and proofs that each can fail; `make drill`, `stops` and `soak` are real."""

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import pytest

from tests.deploy.needed import needs_proc
from tests.drill import day, shards, soak, stops
from tests.drill.alerts import Alerts
from tests.drill.load import FULL
from tests.drill.rooms import Rooms
from tests.drill.soak import APPLIED, DELIVERED, MEMORY, Report
from tests.drill.windows import LAG, Sample, Window
from tests.waiting import WAIT_SECONDS


@pytest.mark.timeout(300)
async def test_a_day_ends_with_the_truth(tmp_path: Path) -> None:
    """Every reaction of the day is counted in the end; here without Prometheus."""
    lines: list[str] = []
    plan = day.Plan(
        seed=1,
        breath_seconds=0.1,
        settle_seconds=2,
        full_seconds=WAIT_SECONDS,
        has_prometheus=False,
        are_tokens_short=False,
    )
    await day.run(plan, tmp_path, lines.append)

    assert len(lines) == 15, lines
    assert "0 differences" in lines[-2]


@dataclass
class Watched:
    """A Prometheus in which these alerts fired, and fire no longer."""

    fired: list[str]

    async def alerts(self) -> dict[str, str]:
        """Return none: nothing fires now."""
        return {}

    async def query(self, _: str) -> list[tuple[dict[str, str], float]]:
        """Return how often each alert fired today."""
        return [({"alertname": alert}, 1.0) for alert in self.fired]


@pytest.mark.parametrize(
    ("expected", "words"),
    [
        ("TallyDown", "should not: TallyLagHigh;"),
        ("TallyTokenEnds", "did not fire: TallyTokenEnds"),
    ],
)
async def test_another_alert_than_expected_fails_a_day(expected: str, words: str) -> None:
    """One too many, and one that is missing."""
    alerts = Alerts()
    alerts.prometheus = cast("Any", Watched(["TallyDown", "TallyLagHigh"]))
    alerts.expected = {"TallyDown", expected}

    with pytest.raises(AssertionError, match=words):
        await alerts.summary()


async def test_a_stop_under_full_load_loses_no_event(tmp_path: Path) -> None:
    """What was read is applied and its cursor saved; the next worker resumes, and needs no list."""
    report = await stops.run(stops.Plan(seed=1, times=1, longest_life=0.3), tmp_path, print)

    assert report.holds, f"\n{report}"
    assert report.acts >= FULL


@pytest.mark.timeout(300)
async def test_shards_come_and_go_without_a_repair(tmp_path: Path) -> None:
    """Two become three, and two again: each name keeps its cursor, and nobody is backfilled."""
    rooms = Rooms(12, each=3)
    lines: list[str] = []
    plan = shards.Plan(
        seed=1,
        rooms=rooms,
        per_second=100,
        kills=1,
        longest_life=0.5,
        measured_seconds=0,
    )
    report = await shards.run(plan, tmp_path, lines.append)

    assert report.holds, f"\n{report}"
    assert report.kills >= 2
    assert all(0 < moved < rooms.channels for moved in report.moved)
    assert len(lines) == 2


async def test_a_lost_event_is_noticed(tmp_path: Path) -> None:
    """The stop is clean, nothing overflows, and yet the tallies are not the truth."""
    report = await stops.run(stops.Plan(seed=1, times=0, faults={"lost": 0.5}), tmp_path, print)

    assert not report.holds, f"\n{report}"
    assert report.wrong, f"\n{report}"
    assert (report.codes, report.gaps, report.listed) == ({0: 1}, {}, 0), f"\n{report}"


@needs_proc("that a worker under load counts everything while it is looked at")
async def test_a_short_soak_counts_everything(tmp_path: Path) -> None:
    """The samples have every figure that is compared, and every tally is the truth."""
    plan = soak.Plan(seed=1, seconds=1, rate=200, rooms=Rooms(4, each=2), sample_seconds=0.25)
    report = await soak.run(plan, tmp_path, print)

    assert not report.wrong, f"\n{report}"
    assert report.exit_code == 0
    assert len(report.samples) == 5
    assert report.samples[-1].figures[APPLIED] > 0
    assert "yes  all tallies are the truth" in str(report)


def test_a_missing_load_fails_a_soak() -> None:
    """A smaller load would flatter the worker; late acts that were made up for count."""
    (claim,) = (claim for claim in _soaked().verdicts() if "of the rate" in claim)

    assert not _soaked(acts=DELIVERED - 0.001).verdicts()[claim]
    assert _soaked(acts=DELIVERED + 0.001).verdicts()[claim]


def test_a_missed_event_fails_a_soak() -> None:
    """A look that proves nothing does not: the list was read while users acted."""
    soaked = _soaked()
    (claim,) = (claim for claim in soaked.verdicts() if "missed" in claim)
    last = soaked.samples[-1]

    soaked.samples[-1] = replace(last, figures={**last.figures, soak.UNPROVEN: 1.0})
    assert soaked.verdicts()[claim]
    overflow = 'tally_gaps_total{cause="overflow"}'
    soaked.samples[-1] = replace(last, figures={**last.figures, overflow: 1.0})
    assert not soaked.verdicts()[claim]


def test_growing_memory_fails_a_soak() -> None:
    """By six per cent from the first window to the last; by four it passes."""
    assert not _soaked(growth=0.06).verdicts()["memory grew by less than 5%"]
    assert _soaked(growth=0.04).verdicts()["memory grew by less than 5%"]


def test_a_lag_is_computed_as_in_prometheus() -> None:
    """A quantile lies between two limits in proportion; earlier counts do not matter."""
    before = _buckets(under_10_ms=1000, under_100_ms=1000, all_of_them=1000)
    after = _buckets(under_10_ms=1080, under_100_ms=1100, all_of_them=1100)
    window = Window([Sample(0, before, 0), Sample(60, after, 0)])

    assert math.isclose(window.lag(0.5), 0.01 * 50 / 80)
    assert math.isclose(window.lag(0.9), 0.01 + 0.09 * 10 / 20)


def _buckets(under_10_ms: float, under_100_ms: float, all_of_them: float) -> dict[str, float]:
    counts = {"0.01": under_10_ms, "0.1": under_100_ms, "+Inf": all_of_them}
    return {f'{LAG}_bucket{{le="{limit}"}}': count for limit, count in counts.items()}


def _soaked(growth: float = 0, acts: float = 1) -> Report:
    """Return a soak in which only memory has grown; ``acts`` is the share of the rate."""
    plan = soak.Plan(seed=1)
    report = Report(plan=plan, exit_code=0, acts=round(acts * plan.rate * plan.seconds))
    for number in range(361):
        buckets = _buckets(80.0 * number, 100.0 * number, 100.0 * number)
        memory = 1e8 * (1 + growth * number / 300)  # from the middle of one window to the other
        figures = {soak.FILES: 1.0, soak.CURSOR: 1.0, MEMORY: memory, **buckets}
        report.samples.append(Sample(5.0 * number, figures, 0))
    return report
