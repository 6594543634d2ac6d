"""Looks come as often as a channel is busy, and in time."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from tests.histories import steady
from tests.simulation.loop import START
from worker.domain.position import TICKS_PER_MILLISECOND, Range
from worker.reconciliation.schedule import DAY, Activity, Load, Look, Schedule
from worker.store.proofs import Proof

HOUR, WEEK = 3600.0, 7 * DAY
SCHEDULE = Schedule(HOUR, DAY, WEEK, 20)
NOW = round(START * 1000)


def ago(seconds: float) -> int:
    """Return the time so many seconds ago."""
    return NOW - round(1000 * seconds)


def planned(proofs: dict[str, Proof]) -> list[Look]:
    """Return the looks that are due, in order."""
    looks = [SCHEDULE.due(channel, proof, NOW) for channel, proof in proofs.items()]
    return sorted(filter(None, looks), key=lambda look: look.order)


def is_due(proof: Proof) -> bool:
    """Tell whether a look at the recent past is due."""
    look = SCHEDULE.due("room", proof, NOW)
    return look is not None and look.wanted != Range()


def proven(recent: float, changed: float | None = None) -> Proof:
    """Return a proof of so many seconds ago; everything was compared an hour ago."""
    return Proof(ago(recent), ago(max(HOUR, recent)), 0 if changed is None else ago(changed))


def test_an_active_channel_is_due_within_the_hour() -> None:
    """It changed since the last look, or in the hour before."""
    assert is_due(proven(0.6 * HOUR, changed=0.1 * HOUR))
    assert is_due(proven(0.6 * HOUR, changed=1.5 * HOUR))
    assert not is_due(proven(0.6 * HOUR, changed=1.7 * HOUR))
    assert not is_due(proven(0.4 * HOUR, changed=0.1 * HOUR))


def test_a_quiet_channel_is_due_within_a_day() -> None:
    """It changed in the week before the last look."""
    assert is_due(proven(0.99 * DAY, changed=3 * DAY))
    assert not is_due(proven(0.9 * DAY, changed=3 * DAY))


def test_a_silent_channel_is_compared_as_a_whole_only() -> None:
    """It has not changed for a week, or never."""
    for changed in (10 * DAY, None):
        assert not is_due(proven(2 * DAY, changed=changed))
        proof = Proof(ago(WEEK), ago(WEEK), 0 if changed is None else ago(changed))
        (look,) = planned({"room": proof})
        assert look.wanted == Range()


def test_a_look_reaches_back_to_the_last_one() -> None:
    """And over the window at least."""
    (look,) = planned({"room": proven(3 * DAY, changed=HOUR)})
    assert look.wanted == Range(str(ago(3 * DAY + HOUR) * TICKS_PER_MILLISECOND))
    (look,) = planned({"room": proven(HOUR, changed=HOUR)})
    assert look.wanted == Range(str(ago(DAY) * TICKS_PER_MILLISECOND))


schedules = st.builds(
    Schedule,
    st.floats(1, 1e5),
    st.floats(1, 1e6),
    st.floats(1, 1e6),
    st.just(20.0),
)


@steady
@given(schedules, st.data())
def test_a_look_comes_in_time(schedule: Schedule, data: st.DataObject) -> None:
    """Rounds begin on time, and make each look within the time of one round."""
    delays = st.floats(0, 0.99)
    begin, period = float(START), schedule.period
    recent = whole = begin
    ends = begin + 3 * max(schedule.full, schedule.every)
    changed = begin
    for number in range(200):
        now = begin + (number + 1) * period
        if now > ends:
            break
        look_at = now + data.draw(delays) * period
        proof = Proof(round(recent * 1000), round(whole * 1000), round(changed * 1000))
        look = schedule.due("room", proof, round(now * 1000))
        changed = now  # the channel is always active
        assert look_at - recent <= schedule.every + 1
        if look:
            recent = look_at
            whole = look_at if look.wanted == Range() else whole
        assert look_at - whole <= schedule.full + 1


def test_channels_proven_together_are_not_due_together() -> None:
    """After an outage all of them were. No hour gets more than four times its share."""
    due: Counter[int] = Counter()
    for number in range(3_000):
        channel, proof = f"room-{number}", Proof(ago(HOUR), ago(HOUR))
        hour = next(hour for hour in range(200) if is_whole_due(channel, proof, hour))
        due[hour] += 1

    assert max(due) * HOUR < WEEK - HOUR
    assert max(due.values()) < 6 * 3_000 / 168


def is_whole_due(channel: str, proof: Proof, hours: int) -> bool:
    """Tell whether everything is looked at so many hours from now."""
    return SCHEDULE.due(channel, proof, ago(-hours * HOUR)) is not None


def test_the_longest_wait_comes_first() -> None:
    """In intervals, so that nothing starves. After an upgrade no channel was ever proven."""
    proofs = {
        "late": proven(1.9 * HOUR, changed=HOUR),
        "never": Proof(changed=ago(DAY)),
        "never, active": Proof(changed=ago(60)),
        "quiet": proven(2 * DAY, changed=4 * DAY),
    }
    looks = planned(proofs)
    assert [look.channel for look in looks] == ["never, active", "late", "quiet", "never"]


def test_a_schedule_that_cannot_be_kept_is_said() -> None:
    """A hundred thousand channels fit into half of the default rate; more active ones do not."""
    assert load(active=2_000, quiet=98_000).minutes_an_hour < 30
    problem = load(active=20_000, quiet=80_000).problem
    assert problem
    assert "TALLY_HISTORY_RATE is 20" in problem


def test_the_time_of_a_look_at_everything_is_said() -> None:
    """A hundred thousand channels, three requests each, at twenty a second: over four hours."""
    assert round(load(active=2_000, quiet=98_000).hours_of_all, 1) == 4.2


def load(active: int, quiet: int) -> Load:
    """Return the load of so many channels."""
    return Load(SCHEDULE, Counter({Activity.ACTIVE: active, Activity.QUIET: quiet}))
