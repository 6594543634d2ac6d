"""Durations have one form, in settings and on the command line."""

import pytest

from worker.domain.duration import FORM, parse_duration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0),
        ("90", 90),
        ("0.1", 0.1),
        ("90s", 90),
        ("15m", 900),
        ("1h30m", 5400),
        ("1.5h", 5400),
        ("7d", 604_800),
        ("1d2h3m4.5s", 93_784.5),
        ("100d", 8_640_000),
        ("1000000000", 1_000_000_000),
    ],
)
def test_a_duration_is_seconds(text: str, seconds: float) -> None:
    """Units are d, h, m, s; larger ones stand before smaller ones."""
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text",
    [
        *("", " ", "s", "soon", "-1", "+1", "1e3", "inf", "nan", ".5", "1.", "1,5", "1_000"),
        *("30m1h", "1h1h", "1h30", "90 s", "1H", "7w", "5min", "PT1H", "01:30", "٣s", "1h\n"),
        *("9999999999d", "1" * 5000),
    ],
)
def test_another_form_is_refused(text: str) -> None:
    """The error has every right form."""
    with pytest.raises(ValueError, match="give a time such as") as error:
        parse_duration(text)

    assert str(error.value) == f"give a time such as {FORM}"
