"""Entries are one line each, and obey nobody."""

import json
from collections.abc import Iterator

import pytest
import structlog

from worker.telemetry.complaints import REPEAT_SECONDS, Complaint
from worker.telemetry.logs import LogFormat, configure, escape

HOSTILE = "a\x1b[31m\nb\r\u202e\u2028\ud83d\x9b"


@pytest.fixture(autouse=True)
def configuration_of_its_own() -> Iterator[None]:
    """Give the next test the logs back as they were."""
    structlog.reset_defaults()
    yield
    structlog.reset_defaults()


@pytest.mark.parametrize("format", list(LogFormat))
def test_hostile_text_gets_no_line_of_its_own(format: LogFormat, capsys: pytest.CaptureFixture[str]) -> None:
    """No line break and no control sequence comes through, in any format."""
    configure(format)

    structlog.get_logger().info("event", channel=HOSTILE)

    written = capsys.readouterr().err
    assert written.count("\n") == 1
    assert written.rstrip("\n").isprintable()
    assert "\\x1b" in written


def test_json_is_json(capsys: pytest.CaptureFixture[str]) -> None:
    """One object a line, with event, level and time."""
    configure(LogFormat.JSON)

    structlog.get_logger().warning("gap", channels=2)

    entry = json.loads(capsys.readouterr().err)
    assert (entry["event"], entry["level"], entry["channels"]) == ("gap", "warning", 2)
    assert entry["timestamp"].endswith("Z")


def test_the_level_is_the_least_that_is_written(capsys: pytest.CaptureFixture[str]) -> None:
    """Below it, nothing."""
    configure(LogFormat.JSON, "warning")

    structlog.get_logger().info("quiet")

    assert capsys.readouterr().err == ""


def test_text_without_controls_is_left_alone() -> None:
    """Emoji and letters of any script."""
    assert escape("👍 ünï 日本") == "👍 ünï 日本"


def test_a_lasting_failure_is_told_once_a_minute() -> None:
    """And its end once, with the number of failures."""
    now = 0.0
    with structlog.testing.capture_logs() as entries:
        complaint = Complaint(structlog.get_logger(), "away", "back", lambda: now)
        for second in range(int(REPEAT_SECONDS) * 2 + 1):
            now = float(second)
            complaint.say(reason="x")
        complaint.over()
        complaint.over()

    assert [entry["event"] for entry in entries] == ["away", "away", "away", "back"]
    assert entries[-1]["failures"] == 121
