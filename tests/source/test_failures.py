"""Answers that are no success, as errors that can be logged."""

import json

import pytest

from worker.errors import ForbiddenError, PubNubError, ThrottledError
from worker.source.failures import LONGEST_RETRY_SECONDS, SWITCH_ON, failure
from worker.source.transport import Response

ACCESS_MANAGER = {"message": "Forbidden", "error": True, "service": "Access Manager"}


def response(status: int, body: object, **headers: str) -> Response:
    """Return a JSON answer."""
    return Response(status, headers, json.dumps(body).encode())


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("3", 3.0),
        ("0.5", 0.5),
        ("999999", LONGEST_RETRY_SECONDS),
        (None, None),
        ("soon", None),
        ("-1", None),
        ("nan", None),
        ("9" * 40, None),
    ],
)
def test_a_throttled_answer_has_its_wait(header: str | None, seconds: float | None) -> None:
    """The wait is in seconds, bounded, and None without a sensible header."""
    headers = {"Retry-After": header} if header else {}

    error = failure("time", Response(429, headers, b"<html>"), ())

    assert isinstance(error, ThrottledError)
    assert (error.retry_after, error.status) == (seconds, 429)


@pytest.mark.parametrize(
    ("body", "channels", "groups"),
    [
        (ACCESS_MANAGER | {"payload": {"channels": ["x", "y"]}}, {"x", "y"}, set()),
        (ACCESS_MANAGER | {"payload": {"channel-groups": [":g", "h"]}}, set(), {"g", "h"}),
        (ACCESS_MANAGER | {"payload": {"channels": "x", "channel-groups": ":g"}}, {"x"}, {"g"}),
        (ACCESS_MANAGER | {"payload": {"channels": [None, 7, ["x"], "y"]}}, {"y"}, set()),
        (ACCESS_MANAGER | {"payload": {"channels": {"x": 1}}}, set(), set()),
        (ACCESS_MANAGER | {"payload": ["x"]}, set(), set()),
        (ACCESS_MANAGER | {"payload": None}, set(), set()),
        ({"error": {"source": "actions", "message": ["odd"]}}, set(), set()),
        (["Forbidden"], set(), set()),
        (None, set(), set()),
    ],
)
def test_a_refusal_has_its_names(body: object, channels: set[str], groups: set[str]) -> None:
    """The payload can have any shape. Groups come without their colon."""
    error = failure("subscribe", response(403, body), ())

    assert isinstance(error, ForbiddenError)
    assert (set(error.channels), set(error.groups)) == (channels, groups)
    assert error.status == 403


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (403, {"message": "Forbidden", "error": True}, "403, Forbidden"),
        (403, {"error": {"source": "actions", "message": "Not yours."}}, "403, Not yours"),
        (403, {"status": 0, "error": "Plain words"}, "403, Plain words"),
        (403, {"error": True, "error_message": "Old style"}, "403, Old style"),
        (403, {"message": "a\x1b[31m\r\nb\u2028c"}, "403, a [31m b c"),
        (403, {"message": "x y " * 100}, "403, " + "x y " * 50 + "…"),
        (404, {"message": "Not Found", "status": 404}, "404, Not Found"),
        (400, {"status": 400, "error": {"message": "Invalid input."}}, "400, Invalid input"),
        (207, {"status": 207, "error": {"message": "Stored"}}, "207, Stored"),
        (500, {}, "500"),
    ],
)
def test_an_error_repeats_pubnubs_words(status: int, body: object, words: str) -> None:
    """They are one printable line of bounded length."""
    error = failure("message actions of 'room'", response(status, body), ())

    assert str(error) == f"PubNub, message actions of 'room': answered {words}."
    assert error.status == status


@pytest.mark.parametrize(
    ("words", "advice"),
    [
        ("Token is expired.", "Put a new token into the file of PUBNUB_AUTH_TOKEN_FILE."),
        ("Token is revoked.", "Put a new token into the file of PUBNUB_AUTH_TOKEN_FILE."),
        ("Signature Does Not Match", "Check PUBNUB_PUBLISH_KEY and PUBNUB_SECRET_KEY."),
        ("Invalid Timestamp", "Check the clock of this machine."),
        (
            "Message Persistence is not enabled for this subscribe key.",
            SWITCH_ON,
        ),
    ],
)
def test_a_403_says_what_to_do(words: str, advice: str) -> None:
    """If PubNub's words tell the cause."""
    error = failure("time", response(403, {"message": words, "error": True}), ())
    assert str(error) == f"PubNub, time: answered 403, {words.rstrip('.')}. {advice}"


@pytest.mark.parametrize("content", [b"<html>", b"", b'{"t":', b"\xff\xfe\xfd", b"[" * 100_000])
def test_a_body_without_json_is_called_so(content: bytes) -> None:
    """The status is known all the same."""
    error = failure("time", Response(502, {}, content), ())

    assert type(error) is PubNubError
    assert (str(error), error.status) == ("PubNub, time: answered 502, not JSON.", 502)
