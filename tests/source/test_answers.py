"""Bodies of answers with status 200: read, or refused for their shape."""

import json
from collections.abc import Callable
from typing import Any, Final

import pytest

from worker.domain.position import Cursor
from worker.errors import PubNubError
from worker.source.answers import Answer, Page, read_answer, read_channels, read_page, read_time

POSITION: Final = {"t": "17600000000000001", "r": 1}
Read = Callable[[str, bytes], object]


def body_of(document: object) -> bytes:
    """Return it as PubNub sends it."""
    return json.dumps(document).encode()


def test_messages_come_as_they_are() -> None:
    """They keep their order. Malformed and repeated ones stay."""
    messages = [{"e": 3}, "nonsense", None, {"c": "room-pnpres"}, {"e": 3}]

    answer = read_answer("subscribe", body_of({"t": POSITION, "m": messages}))

    assert answer == Answer(Cursor("17600000000000001", 1), len(messages))
    assert answer.messages() == tuple(messages)


def test_messages_of_the_usual_form_are_decoded_once() -> None:
    """Their payloads wait for whoever needs them."""
    answer = read_answer("subscribe", body_of({"t": POSITION, "m": [{"e": 3, "d": [1]}, {}]}))

    assert answer.usual is not None
    assert [(message.e, bytes(message.d)) for message in answer.usual] == [
        (3, b"[1]"),
        (0, b"null"),
    ]


@pytest.mark.parametrize(
    ("body", "page"),
    [
        ({"data": [], "status": 200}, Page((), None)),
        ({"data": [{"type": "a"}, "odd"]}, Page(({"type": "a"}, "odd"), None)),
        ({"more": {"start": 176, "url": "/"}, "data": []}, Page((), "176")),
        ({"more": {"start": "176"}, "data": [1]}, Page((1,), "176")),
    ],
)
def test_a_page_has_actions_and_perhaps_a_start(body: object, page: Page) -> None:
    """``more`` can have text or a number. The keys have any order."""
    assert read_page("message actions", body_of(body)) == page


def test_a_groups_channels_keep_their_order() -> None:
    """PubNub's order is the order of joining."""
    assert read_channels("group", body_of({"payload": {"channels": ["b", "a"]}})) == ("b", "a")


def test_the_clock_is_a_timetoken() -> None:
    """PubNub sends it as a number in a list."""
    assert read_time("time", body_of([15800727359579289])) == "15800727359579289"


WRONG: Final[dict[Read, tuple[Any, ...]]] = {
    read_answer: (
        [1, 2],
        {"t": POSITION},
        {"t": POSITION, "m": None},
        {"t": POSITION, "m": {"0": 1}},
        {"m": []},
        {"t": "17600000000000001", "m": []},
        {"t": {"r": 1}, "m": []},
        *(
            {"t": {"t": odd, "r": 1}, "m": []}
            for odd in ("", "12a", "-5", "1.5", "0", " 1", 1.5, True, "१")
        ),
        *({"t": {"t": "176", "r": odd}, "m": []} for odd in ("x", None, True, 1.5)),
    ),
    read_page: (
        [1, 2],
        {"status": 200},
        {"data": None},
        {"data": {}},
        {"data": [], "more": []},
        {"data": [], "more": {}},
        {"data": [], "more": {"start": "soon"}},
        {"data": [], "status": 503},
        {"data": [], "error": {"message": "partial"}},
    ),
    read_channels: (
        [1, 2],
        {"payload": None},
        {"payload": []},
        {"payload": {}},
        {"payload": {"channels": "a"}},
        {"payload": {"channels": ["a", 1]}},
    ),
    read_time: (
        [],
        ["now"],
        [1.5],
        [True],
        [0],
        [[1]],
        "17600000000000001",
        {"time": 17600000000000001},
        [1, 2],
        ["00000000000000001"],
    ),
}


@pytest.mark.parametrize(
    ("read", "body"), [(read, body) for read, bodies in WRONG.items() for body in bodies]
)
def test_a_body_of_another_shape_is_an_error(read: Read, body: object) -> None:
    """The error can be retried, and has the status."""
    with pytest.raises(PubNubError, match="PubNub, it: answered 200 with") as caught:
        read("it", body_of(body))

    assert caught.value.status == 200
