"""Every benchmark runs and ends with the right result, with a thousandth of the work."""

import json
from pathlib import Path
from typing import Final

import pytest

from tests.benchmarks import report
from tests.benchmarks.__main__ import benchmarks, run
from tests.benchmarks.harness import (
    SMALL,
    Benchmark,
    Figure,
    Measured,
    Ratio,
    WrongResultError,
    expect,
    measure,
)
from tests.benchmarks.race import CONTENDERS
from tests.benchmarks.shapes import Shape, busy

ABSENT: Final = ("Redis_", "node_")
"""What the baseline has of programs that a machine may lack."""


@pytest.mark.parametrize("benchmark", benchmarks().values(), ids=lambda benchmark: benchmark.name)
async def test_every_contender_does_its_work(benchmark: Benchmark) -> None:
    """A wrong result raises; so does a line without a value."""
    lines = await measure(benchmark, 1, SMALL)
    assert len(lines) == len(benchmark.lines)


async def test_ratios_are_taken_within_a_round() -> None:
    """A machine that is slow for a while is slow for both contenders."""
    speeds = iter([(30.0, 3.0), (10.0, 1.0), (20.0, 2.0)])

    async def one_round(size: float) -> dict[str, float]:
        ours, theirs = next(speeds)
        return {"ours": ours, "theirs": theirs}

    lines = (Figure("ours", "ours", "/s"), Ratio("ours", "theirs", "ours / theirs", at_least=11))
    figure, ratio = await measure(Benchmark("b", "", lines, one_round), 3)
    assert (figure.median, ratio.values, ratio.is_reached) == (20.0, (10.0, 10.0, 10.0), False)


def test_each_round_begins_with_the_next_contender() -> None:
    """What the machine does after a while hits each contender in turn."""
    shape = Shape(name="s", work="", course=busy, contenders=CONTENDERS[:3])
    first, second, third = CONTENDERS[:3]
    assert list(shape.turns(1)) == [second, third, first]
    assert list(shape.turns(3)) == [first, second, third]


def test_a_target_is_held_against_the_median() -> None:
    """One slow round of three does not miss it."""
    assert Measured(Ratio("a", "b", "", at_most=2), (1.0, 9.0, 1.5)).is_reached


async def test_a_failed_benchmark_leaves_the_others(capsys: pytest.CaptureFixture[str]) -> None:
    """It is printed with its name, and the exit code is 1."""

    async def fails(size: float) -> dict[str, float]:
        raise TimeoutError("no answer")

    async def works(size: float) -> dict[str, float]:
        return {"ours": 1}

    lines = (Figure("ours", "what works", "s"),)
    chosen = [Benchmark("first", "", lines, fails), Benchmark("second", "", lines, works)]
    assert await run(chosen, 1, SMALL, as_json=False, save=False) == 1
    output = capsys.readouterr().out
    assert "first: TimeoutError: no answer" in output
    assert "what works" in output


def test_a_saved_benchmark_has_no_old_lines(tmp_path: Path) -> None:
    """A line that is gone leaves the baseline; benchmarks that were not run stay."""
    baseline = tmp_path / "baseline.json"
    baseline.write_text(json.dumps({"run": {"old": 1, "ours": 2}, "not run": {"ours": 3}}))
    report.save({"run": [Measured(Figure("ours", "ours", "s"), (4.0,))]}, baseline)
    assert report.load(baseline) == {"run": {"ours": 4}, "not run": {"ours": 3}}


@pytest.mark.parametrize("name", report.load())
def test_the_baseline_has_lines_that_are_measured(name: str) -> None:
    """A change of a benchmark takes its old figures along."""
    keys = {line.key for line in benchmarks()[name].lines}
    unknown = report.load()[name].keys() - keys
    assert not [key for key in unknown if not any(map(key.count, ABSENT))]


def test_a_wrong_result_is_no_figure() -> None:
    """It raises, and the run fails."""
    with pytest.raises(WrongResultError, match="ours"):
        expect({"👍": 2}, {"👍": 3}, "ours")
