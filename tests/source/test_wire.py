"""One payload becomes an event, a malformed event, or nothing."""

import copy
import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.histories import steady
from worker.domain.action import Added, Identity, Removed
from worker.source.answers import Answer, read_answer
from worker.source.wire import (
    CountedTypes,
    Malformed,
    UnusualError,
    action_timetoken,
    decode_action,
    decode_answer,
    decode_message,
    decode_usual,
)

ALL = CountedTypes()
IDENTITY = Identity("room", "17600000001728660", "reaction", "👍", "ana")
ANNOUNCED: dict[str, Any] = {
    "a": "5",
    "f": 0,
    "e": 3,
    "i": "ana",
    "p": {"t": "17600000002110345", "r": 43},
    "k": "demo",
    "c": "room",
    "d": {
        "source": "actions",
        "version": "1.0",
        "event": "added",
        "data": {
            "type": "reaction",
            "value": "👍",
            "actionTimetoken": "17600000002020754",
            "messageTimetoken": "17600000001728660",
        },
    },
}
LISTED = {
    "type": "reaction",
    "value": "👍",
    "uuid": "ana",
    "actionTimetoken": "17600000002020754",
    "messageTimetoken": "17600000001728660",
}
GONE = object()


def changed(document: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """Return a copy with the value at a dotted path replaced or removed."""
    document = copy.deepcopy(document)
    *holders, last = path.split(".")
    holder = document
    for name in holders:
        holder = holder[name]
    if value is GONE:
        del holder[last]
    else:
        holder[last] = value
    return document


def test_an_addition_is_decoded() -> None:
    """The user is ``i``. The time of publishing is ``p.t``."""
    assert decode_message(ANNOUNCED, ALL) == Added(
        IDENTITY, "17600000002020754", "17600000002110345"
    )


def test_a_removal_names_the_addition() -> None:
    """It has the action timetoken of the addition."""
    removal = changed(ANNOUNCED, "d.event", "removed")
    assert decode_message(removal, ALL) == Removed(
        IDENTITY, "17600000002020754", "17600000002110345"
    )


def test_an_item_of_history_is_an_addition() -> None:
    """Its time of publishing is the action timetoken."""
    assert decode_action("room", LISTED, ALL) == Added(
        IDENTITY, "17600000002020754", "17600000002020754"
    )


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("e", "3"),
        ("d.data.actionTimetoken", 17600000002020754),
        ("d.data.messageTimetoken", 17600000001728660),
        ("d.data.uuid", "ana"),
        ("d.data.uuid", None),
        ("f", "anything"),
        ("b", "ro.*"),
        ("d.source", GONE),
        ("d.version", GONE),
    ],
)
def test_a_harmless_oddity_changes_nothing(path: str, value: Any) -> None:
    """An integer timetoken, for example, has lost no digit."""
    assert decode_message(changed(ANNOUNCED, path, value), ALL) == decode_message(ANNOUNCED, ALL)


def test_a_uuid_in_the_data_is_the_user() -> None:
    """It takes precedence over ``i``."""
    event = decode_message(changed(ANNOUNCED, "d.data.uuid", "ben"), ALL)
    assert isinstance(event, Added)
    assert event.identity.uuid == "ben"


@pytest.mark.parametrize(
    "published", [GONE, None, {}, {"t": "soon"}, {"t": 1.5}, "17600000002110345"]
)
def test_an_event_needs_no_time_of_publishing(published: Any) -> None:
    """Without a readable ``p.t``, the action timetoken counts."""
    event = decode_message(changed(ANNOUNCED, "p", published), ALL)
    assert event == Added(IDENTITY, "17600000002020754", "17600000002020754")


@pytest.mark.parametrize("kind", [GONE, 0, 1, 2, 4, "4", None, "three", 3.5, [], {"e": 3}])
def test_other_kinds_of_messages_are_skipped(kind: Any) -> None:
    """They can have any content."""
    assert decode_message(changed(ANNOUNCED, "e", kind), ALL) is None
    assert decode_message({"e": kind} if kind is not GONE else {}, ALL) is None


def test_types_that_are_not_counted_are_skipped() -> None:
    """They are ignored, or not among the chosen types."""
    assert decode_message(ANNOUNCED, CountedTypes(ignored=frozenset({"reaction"}))) is None
    assert decode_action("room", LISTED, CountedTypes(types=frozenset({"receipt"}))) is None
    assert decode_action("room", LISTED, CountedTypes(types=frozenset({"reaction"}))) is not None
    chosen_and_ignored = CountedTypes(frozenset({"reaction"}), frozenset({"reaction"}))
    assert decode_action("room", LISTED, chosen_and_ignored) is None


@pytest.mark.parametrize(
    ("path", "value", "reason"),
    [
        ("c", GONE, "c is missing"),
        ("c", 5, "c is of type int where text belongs"),
        ("d", GONE, "d is missing where an object belongs"),
        ("d", "text", "d is of type str"),
        ("d.event", GONE, "neither added nor removed"),
        ("d.event", "renamed", "the event is 'renamed'"),
        ("d.event", {"x": 1}, "neither added nor removed"),
        ("d.data", GONE, "data is missing"),
        ("d.data", [], "data is of type list"),
        ("d.data.type", 5, "type is of type int where text belongs"),
        ("d.data.value", 5, "value is of type int where text belongs"),
        ("d.data.value", GONE, "value is missing"),
        ("d.data.value", "\ud83d", "value holds a lone surrogate"),
        ("d.data.value", "x" * 1_000_000, "value has 1000000 bytes"),
        ("i", GONE, "uuid is missing"),
        ("i", 7, "uuid is of type int"),
        ("i", "\udc00", "uuid holds a lone surrogate"),
        ("c", "\ud83d", "c holds a lone surrogate"),
        ("d.data.uuid", 7, "uuid is of type int"),
        ("d.data.actionTimetoken", GONE, "actionTimetoken is missing"),
        ("d.data.actionTimetoken", "", "not a timetoken"),
        ("d.data.actionTimetoken", "0", "not a timetoken"),
        ("d.data.actionTimetoken", "0176", "not a timetoken"),
        ("d.data.actionTimetoken", "１２３", "not a timetoken"),
        ("d.data.actionTimetoken", 1.76e16, "actionTimetoken is of type float"),
        ("d.data.actionTimetoken", True, "actionTimetoken is of type bool"),
        ("d.data.messageTimetoken", "x:{y}", "messageTimetoken is 'x:{y}'"),
        ("d.data.messageTimetoken", "1" * 21, "not a timetoken"),
    ],
)
def test_a_malformed_event_has_its_reason(path: str, value: Any, reason: str) -> None:
    """The reason names the field. The payload is JSON of bounded length."""
    malformed = decode_message(changed(ANNOUNCED, path, value), ALL)

    assert isinstance(malformed, Malformed)
    assert reason in malformed.reason
    assert malformed.payload.isascii()
    assert len(malformed.payload) <= 4096


@pytest.mark.parametrize("message", [None, 5, "text", [], True])
def test_a_payload_that_is_no_object_is_malformed(message: Any) -> None:
    """It can stand in an answer or in a list."""
    assert isinstance(decode_message(message, ALL), Malformed)
    assert isinstance(decode_action("room", message, ALL), Malformed)


def test_a_channel_with_pnpres_in_its_name_is_a_channel() -> None:
    """The SDK alone fails on it."""
    event = decode_message(changed(ANNOUNCED, "c", "room-pnpres"), ALL)
    assert isinstance(event, Added)
    assert event.identity.channel == "room-pnpres"


def test_an_old_parent_keeps_its_timetoken() -> None:
    """PubNub does not check it. It can have ten digits or leading zeros."""
    for parent in ("1234567890", "007", "0"):
        event = decode_message(changed(ANNOUNCED, "d.data.messageTimetoken", parent), ALL)
        assert isinstance(event, Added)
        assert event.identity.message_timetoken == parent


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)


DATA = [f"d.data.{key}" for key in LISTED]
places = st.sampled_from(["e", "i", "p", "p.t", "c", "d", "d.event", "d.data", *DATA])
SHORT = ["", "0", "01", "1" * 20, "1" * 21, "１２", "1 ", "ana", "👍", "\ud83d", "a,b", "removed"]
oddities = st.sampled_from([*SHORT, "é" * 40_000, "x" * 400])


def answer_with(*messages: object) -> Answer:
    """Return the answer that has these messages."""
    body = {"t": {"t": "17600000002110345", "r": 1}, "m": messages}
    return read_answer("subscribe", json.dumps(body).encode())


@steady
@given(st.lists(st.tuples(places, json_values | oddities), max_size=2))
@example([])
@example([("d.event", "removed")])
def test_the_usual_and_any_decoding_agree(changes: list[tuple[str, Any]]) -> None:
    """No JSON raises. An answer with an unusual message is decoded message by message."""
    message = copy.deepcopy(ANNOUNCED)
    for path, value in changes:
        with suppress(TypeError, KeyError):  # the first change can remove the second's place
            message = changed(message, path, value)
    answer = answer_with(message)
    for counted_types in (ALL, CountedTypes(ignored=frozenset({"reaction"}))):
        event = decode_message(message, counted_types)
        expected = [event] if event else []
        if isinstance(event, Added | Removed):
            identity = event.identity
            "".join([identity.channel, identity.value, identity.uuid]).encode()
        assert decode_answer(answer, counted_types) == expected
        try:
            assert decode_usual(answer, counted_types) == expected
        except UnusualError:
            assert changes


def test_the_usual_form_needs_no_second_look() -> None:
    """Also beside messages of other kinds, with any payload."""
    others = [{}, {"e": 0, "d": "a text"}, {"e": 4, "d": {"file": [1.5, None]}}]
    answer = answer_with(*others, ANNOUNCED)

    assert decode_usual(answer, ALL) == [decode_message(ANNOUNCED, ALL)]


@pytest.mark.parametrize(
    "odd",
    [
        b'{"e":3,"c":"room","i":"ana","d":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"e":3,"c":"room","i":"\\ud83d"}',
        b'{"e":3,"c":"room","i":"\xff"}',
        b'{"e":3,"c":"room","d":{"event":"added","data":{"type":"\xff"}}}',
        b'{"e":3,"c":"room","d":' + b"9" * 5000 + b"}",
        b'{"e":3,"c":"room","d":NaN}',
        b"17",
    ],
)
def test_a_hostile_message_loses_no_other(odd: bytes) -> None:
    """The others of its answer are decoded as ever, and the order stays."""
    usual = json.dumps(ANNOUNCED).encode()
    content = b'{"t":{"t":"17600000002110345","r":1},"m":[%s,%s,%s]}' % (usual, odd, usual)

    first, malformed, last = decode_answer(read_answer("subscribe", content), ALL)

    assert first == last == decode_message(ANNOUNCED, ALL)
    assert isinstance(malformed, Malformed)


@steady
@given(json_values)
def test_no_json_in_a_list_raises(item: Any) -> None:
    """Paging reads the timetoken of each item, whatever it is."""
    decode_action("room", item, ALL)
    timetoken = action_timetoken(item)
    assert timetoken is None or timetoken.isdecimal()


def test_equal_counted_types_have_equal_texts() -> None:
    """Two workers are compared by them."""
    assert str(CountedTypes()) == "all types"
    assert str(CountedTypes(ignored=frozenset({"b", "a"}))) == "all types but a,b"
    assert (
        str(CountedTypes(types=frozenset({"b", "a", "c"}), ignored=frozenset({"c"}))) == "only a,b"
    )
