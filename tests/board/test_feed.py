"""What the board collects: bounded, decaying, and the same for all clients."""

import time
from dataclasses import replace
from typing import Any

import pytest
from msgspec.json import decode
from prometheus_client.parser import text_string_to_metric_families

from reaction_tally.values import Change, Reset
from worker.board.activity import HELD, SLACK, Activity, unread
from worker.board.buckets import BUCKETS, SECONDS, Buckets
from worker.board.frames import Frames
from worker.board.plots import POINTS, Counters, Plots, quantile
from worker.board.summary import State, summary
from worker.board.work import Work
from worker.store.heartbeat import no_worker
from worker.store.tables import DeadLetter

NOW = 1_796_009_672.0


def change(message: str, count: int = 1, value: str = "👍", channel: str = "room") -> Change:
    """Return a change of a message."""
    return Change(
        channel=channel,
        message_timetoken=message,
        type="reaction",
        value=value,
        count=count,
        position="1-0",
    )


def test_buckets_forget_what_is_older_than_five_minutes() -> None:
    """The newest count stands last."""
    buckets = Buckets()
    buckets.add(NOW, 2)
    buckets.add(NOW + SECONDS, 3)

    assert buckets.counts(NOW + SECONDS)[-2:] == [2, 3]
    assert buckets.last_minute(NOW + SECONDS) == 5
    assert buckets.last_minute(NOW + 7 * SECONDS) == 0
    assert buckets.counts(NOW + BUCKETS * SECONDS) == [3] + [0] * (BUCKETS - 1)
    assert sum(buckets.counts(NOW + 10 * BUCKETS * SECONDS)) == 0


def test_busiest_is_what_changes_most_lately() -> None:
    """Many changes of ten minutes ago are less than two of now."""
    activity = Activity()
    for _ in range(50):
        activity.note(change("1"), NOW)
    activity.note(change("2"), NOW + 600)
    activity.note(change("3"), NOW + 600)
    activity.note(change("3"), NOW + 601)

    assert [message.timetoken for message in activity.busiest(2)] == ["3", "2"]
    assert activity.busiest(3)[2].timetoken == "1"


def test_activity_holds_a_bounded_number_of_messages_and_channels() -> None:
    """The coldest messages go first."""
    activity = Activity(held=10)
    for number in range(3 * SLACK):
        activity.note(change(str(number), channel=f"room-{number}"), NOW + number)

    assert len(activity) <= 10 + SLACK
    assert activity.busiest(1)[0].timetoken == str(3 * SLACK - 1)
    assert activity.last_minute("room-0", NOW + 3 * SLACK) == 0
    assert activity.last_minute(f"room-{3 * SLACK - 1}", NOW + 3 * SLACK) == 1


def test_counts_that_were_read_do_not_replace_newer_changes() -> None:
    """A change that comes while all counts are read is newer than they are."""
    activity = Activity()
    activity.note(change("1", 3), NOW)
    message = activity.message("room", "1")
    assert unread([message]) == {"room": [message]}
    reading = message.begin_reading()
    assert unread([message]) == {}
    activity.note(change("1", 5), NOW)
    message.end_reading(reading, {"reaction": {"👍": 4, "🎉": 2}})

    assert message.row(NOW)["reactions"] == [["reaction", "👍", 5], ["reaction", "🎉", 2]]
    assert message.row(NOW)["total"] == 7


def test_a_reset_makes_counts_unknown_and_an_expiry_ends_a_message() -> None:
    """They are read again; a message that is gone is shown no more."""
    activity = Activity()
    activity.note(change("1"), NOW)
    message = activity.message("room", "1")
    message.end_reading(message.begin_reading(), {"reaction": {"👍": 1}})
    assert not unread([message])
    activity.note(Reset("room", "2-0"), NOW)
    assert unread(activity.busiest(9))
    gone = Change(channel="room", message_timetoken="1", type="", value="", count=0, position="3-0")
    activity.note(gone, NOW)
    assert len(activity) == 0


def test_values_that_are_gone_take_no_room() -> None:
    """Somebody may add and remove a new value each second, for days."""
    activity = Activity()
    for number in range(100):
        activity.note(change("1", 1, str(number)), NOW)
        activity.note(change("1", 0, str(number)), NOW)
    assert not activity.message("room", "1").counts


def test_what_was_read_before_a_reset_is_not_taken() -> None:
    """It may be of the Redis before it. Nor is what another reading has found meanwhile."""
    activity = Activity()
    message = activity.message("room", "1")
    reading = message.begin_reading()
    activity.note(Reset("room", "2-0"), NOW)
    newer = message.begin_reading()
    message.end_reading(reading, {"reaction": {"👍": 9}})
    message.give_up_reading(reading)
    assert not message.counts
    message.end_reading(newer, {"reaction": {"👍": 2}})
    assert message.counts == {("reaction", "👍"): 2}


def test_resets_of_very_many_channels_stop_nobody() -> None:
    """Redis that went back resets each channel. The worker counts in the same loop."""
    activity = Activity()
    for number in range(HELD):
        activity.message(f"room-{number}", "1")
    began = time.process_time()
    for number in range(10 * HELD):
        activity.note(Reset(f"room-{number}", "2-0"), NOW)
    assert time.process_time() - began < 5


def test_messages_that_are_gone_leave_nothing() -> None:
    """Channels come and go, too."""
    activity = Activity()
    for number in range(1_000):
        room = f"room-{number}"
        activity.note(change("1", channel=room), NOW)
        gone = replace(change("1", 0, "", room), type="")
        activity.note(gone, NOW)
    assert len(activity) == 0
    assert not activity._messages


def test_a_row_is_bounded_whatever_people_choose() -> None:
    """Five reactions, most first; long values are cut."""
    activity = Activity()
    for number in range(40):
        activity.note(change("1", number + 1, f"{number:02}" + "x" * 5_000), NOW)
    row = activity.busiest(1)[0].row(NOW)

    assert [count for _, _, count in row["reactions"]] == [40, 39, 38, 37, 36]
    assert row["more"] == 35
    assert all(len(value) < 250 for _, value, _ in row["reactions"])


@pytest.mark.parametrize(
    ("buckets", "part", "expected"),
    [
        ({}, 0.5, None),
        ({0.1: 0, float("inf"): 0}, 0.5, None),
        ({0.1: 10, 0.2: 10, float("inf"): 10}, 0.5, 0.05),
        ({0.1: 50, 0.2: 100, float("inf"): 100}, 0.99, 0.198),
        ({0.1: 1, float("inf"): 100}, 0.99, 0.1),
    ],
)
def test_a_quantile_is_found_in_its_bucket(
    buckets: dict[float, float], part: float, expected: float | None
) -> None:
    """What is beyond the last bound is as long as that bound, at least."""
    assert quantile(buckets, part) == pytest.approx(expected)


def counters(received: int, applied: int) -> Counters:
    """Return counters as a worker's ``/metrics`` has them."""
    text = (
        f'tally_events_total{{origin="live",outcome="applied"}} {applied}\n'
        f'tally_events_total{{origin="live",outcome="duplicate"}} {received - applied}\n'
        'tally_events_total{origin="backfill",outcome="applied"} 1000\n'
        f'tally_lag_seconds_bucket{{le="0.1"}} {received}\n'
        f'tally_lag_seconds_bucket{{le="+Inf"}} {received}\n'
        "tally_budget_requests_total 7\ntally_budget_rate 20\n"
    )
    return Counters.of(text_string_to_metric_families(text))


def test_plots_are_what_happened_between_two_readings() -> None:
    """A second. Another process begins anew, and a worker that is away leaves a hole."""
    plots = Plots()
    plots.note(NOW, counters(100, 90))
    assert plots.rate is None
    plots.note(NOW + 5, counters(150, 130))
    assert plots.all()["received"] == [10]
    assert plots.all()["applied"] == [8]
    assert plots.all()["allowed"] == [20]
    plots.note(NOW + 10, counters(5, 5))
    assert len(plots.all()["times"]) == 1
    plots.note(NOW + 15, None)
    assert not plots.is_available
    for number in range(2 * POINTS):
        plots.note(NOW + 20 + 5 * number, counters(1000 + number, 0))
    assert len(plots.all()["times"]) == POINTS


def status(**changes: Any) -> dict[str, Any]:
    """Return a status of a worker that is in order."""
    ages = {"max": 41.0, "0.99": 30.0}
    backlog = {
        "channels": 12_408,
        "owed_channels": 0,
        "owed": {},
        "backfills": {},
        "last_round": None,
        "never_proven": 0,
        "unproven_seconds": {"recent": ages, "whole": ages},
    }
    checks = {"redis": {"ok": True}, "subscriptions": {"ok": True}}
    return {"redis": backlog | changes, "ready": {"checks": checks}}


def test_the_sentence_says_whether_counts_can_be_trusted() -> None:
    """In order, under repair, a person is needed, or unknown; with the reason."""
    facts = summary(status(), 318, has_worker=True)
    assert (facts["state"], facts["proven_seconds"], facts["reason"]) == (State.GOOD, 41.0, "")
    assert summary(status(owed_channels=3), 1, has_worker=True)["state"] is State.REPAIRING
    assert summary(status(never_proven=1), 1, has_worker=True)["state"] is State.REPAIRING
    failing = status()
    failing["ready"]["checks"]["redis"] = {"ok": False, "reason": "it is full"}
    facts = summary(failing, 1, has_worker=True)
    assert (facts["state"], facts["reason"]) == (State.ATTENTION, "redis: it is full")
    facts = summary(status(owed_channels=3), None, has_worker=False)
    assert (facts["state"], facts["owed"]) == (State.UNKNOWN, 3)
    assert facts["reason"] == "No worker answers at TALLY_HTTP: nobody knows whether one counts."
    alive = summary(status() | {"no_worker": ""}, None, has_worker=False)
    assert alive["state"] is State.UNKNOWN
    assert alive["reason"].endswith("nobody knows what the one that runs does.")
    dead = summary(status() | {"no_worker": no_worker(600)}, None, has_worker=False)
    assert dead["state"] is State.ATTENTION
    assert "the last one gave a sign of life 10 minutes ago." in dead["reason"]
    away = {"redis": "does not answer"}
    assert summary(away, None, has_worker=False)["state"] is State.UNKNOWN


def test_the_end_of_a_repair_is_estimated_from_its_pace() -> None:
    """Of a backfill that has come halfway in a minute, and of all channels that are owed."""
    work = Work()

    def view(reached: str, owed: int, now: float) -> dict[str, Any]:
        progress = {
            "actions": 500,
            "has_come_back_to": reached,
            "goes_back_to": "2026-11-29T00:00:00+00:00",
        }
        backlog = status(owed_channels=owed, backfills={"room": progress})
        shown: dict[str, Any] = work.view(backlog, (0, None), now)["repairs"]
        return shown

    first = view("2026-11-29T02:00:00+00:00", 40, NOW)
    assert first["seconds_left"] is None
    second = view("2026-11-29T01:00:00+00:00", 10, NOW + 60)
    assert second["seconds_left"] == 20
    assert second["items"][0]["seconds_left"] == 60
    assert second["items"][0]["part"] == 0.5


def test_the_newest_reason_of_the_quarantine_is_shown() -> None:
    """With its channel, as text of strangers."""
    letter = DeadLetter("<b>", "no uuid", 5)
    shown = Work().view({}, (3, letter), NOW)["quarantine"]
    assert shown == {"count": 3, "channel": "<b>", "reason": "no uuid", "at": 5}
    assert Work().view({}, (0, None), NOW)["quarantine"] == {"count": 0}
    assert Work().view({}, None, NOW)["quarantine"] is None, "unknown is not empty"


def test_all_clients_get_the_same_bytes() -> None:
    """A new one gets a snapshot; then everybody gets updates, each encoded once."""
    frames = Frames()
    early: list[bytes] = []
    late: list[bytes] = []
    with frames.joined(early.append):
        frames.publish({"at": 1, "rows": {}}, {"at": 1})
        with frames.joined(late.append):
            frames.publish({"at": 2, "rows": {}}, {"at": 2})
            assert frames.clients == 2
    frames.publish({"at": 3, "rows": {}}, {"at": 3})

    assert [name_of(frame) for frame in early] == ["snapshot", "update"]
    assert [name_of(frame) for frame in late] == ["snapshot", "update"]
    assert early[1] is late[1]
    assert decode(frames.snapshot())["sequence"] == 3


def name_of(frame: bytes) -> str:
    """Return the name of a server-sent event."""
    return frame.decode().partition("event: ")[2].partition("\n")[0]
