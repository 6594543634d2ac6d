"""A token says when it ends. Any other text has an unknown end, and is no error."""

from base64 import urlsafe_b64encode

import pytest
from cbor2 import dumps

from tests.source.tokens import NOW, access_token
from worker.source.access_token import UNKNOWN, TokenEnd

MINUTE, HOUR, DAY = 60, 3_600, 86_400


@pytest.mark.parametrize(
    ("minutes", "passed", "sentence"),
    [
        (12 * 1440 + 300, 0, "ends in 12 days (2026-12-11 15:00 UTC)"),
        (43_200, 0, "ends in 30 days (2026-12-29 10:00 UTC)"),
        (2880, 1, "ends in 47 hours (2026-12-01 10:00 UTC)"),
        (1440, 0, "ends in 24 hours (2026-11-30 10:00 UTC): put a new one in its place now"),
        (90, 0, "ends in 90 minutes (2026-11-29 11:30 UTC): put a new one in its place now"),
        (1, 30, "ends in a minute (2026-11-29 10:01 UTC): put a new one in its place now"),
        (1, MINUTE, "has ended a minute ago (2026-11-29 10:01 UTC)"),
        (60, 4 * HOUR, "has ended 3 hours ago (2026-11-29 11:00 UTC)"),
    ],
)
def test_a_token_says_when_it_ends(minutes: int, passed: float, sentence: str) -> None:
    """In the largest unit of which two are left."""
    end = TokenEnd.of(access_token(minutes))

    assert end.sentence(NOW + passed) == sentence
    assert end.has_come(NOW + passed) == (passed >= minutes * MINUTE)
    assert end.timestamp == NOW + minutes * MINUTE
    assert end.as_json(NOW)["seconds_left"] == minutes * MINUTE


def test_a_token_may_lack_its_padding() -> None:
    """Or have white space around it, as a file has."""
    for extra in ("", "a", "bc", "def"):
        token = access_token(60, meta={"for": extra})
        assert TokenEnd.of(f" {token.rstrip('=')}\n").timestamp == NOW + HOUR


@pytest.mark.parametrize(
    "token",
    [
        "",
        "canary",
        "an old key of Access Manager v2",
        "👍",
        "p0F2",
        access_token(60)[:40],
        access_token(60, t="today"),
        access_token(60, t=10**18),
        access_token(60, t=None),
        access_token("60"),  # type: ignore[arg-type]
        urlsafe_b64encode(dumps([1, 2])).decode(),
        urlsafe_b64encode(b"\x81" * 100_000).decode(),
    ],
)
def test_another_text_has_an_unknown_end(token: str) -> None:
    """Whatever the SDK raises. It is neither over nor later than another one."""
    end = TokenEnd.of(token)

    assert end == TokenEnd(None)
    assert end.sentence(NOW) == UNKNOWN
    assert end.as_json(NOW) == {"ends_at": None, "seconds_left": None, "says": UNKNOWN}
    assert end.timestamp == 0
    assert not end.has_come(NOW)
    assert not end.is_later_than(end)
