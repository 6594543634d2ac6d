"""Rounds over many channels keep what is promised, within half of the request budget."""

from tests.bench.week import LIMITS, Week, overdue, play
from worker.reconciliation.schedule import DAY, HOUR

CHANNELS = 500
RATE = 20 * CHANNELS / 100_000
"""The default rate is for a hundred thousand channels."""
BUDGET = RATE * HOUR


def requests_an_hour(week: Week, days: int) -> list[int]:
    """Return the requests of each hour."""
    return [week.requests[hour] for hour in range(24 * days)]


def test_losses_are_found_in_time() -> None:
    """In an active channel within the hour, in a quiet one within a day, all within a week."""
    week = play(CHANNELS, RATE, losses=0.2)

    assert overdue(week) == []
    longest, _ = week.unproven["whole"]
    assert longest < 7 * DAY
    for kind, limit in LIMITS.items():
        assert max(week.delays[kind]) < limit, kind
    found = {kind: len(delays) for kind, delays in week.delays.items()}
    assert min(found.values()) > 50, found


def test_rounds_use_half_of_the_budget() -> None:
    """One channel in fifty is active; the worker knows what that costs."""
    week = play(CHANNELS, RATE)

    hours = requests_an_hour(week, 7)
    mean = sum(hours) / len(hours)
    assert mean < BUDGET / 2
    assert 0.6 * mean < week.estimate < 1.5 * mean
    assert week.rounds > 600


def test_an_upgrade_delays_no_active_channel() -> None:
    """No channel was ever proven. All of them are compared as fast as the rate allows."""
    week = play(CHANNELS, RATE, days=1, losses=0.2, fresh=True)

    assert max(week.delays["active"]) < HOUR
    assert week.requests[0] < BUDGET + 100
    assert requests_an_hour(week, 1)[12] < BUDGET / 2
