"""Names of keys and fields: any text comes back, and they read as the contract says."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reaction_tally.errors import InvalidNameError
from reaction_tally.keys import Keys, action_field, read_action_field, tally_field
from reaction_tally.operations import read_counts
from tests.histories import steady
from worker.store.cursors import digest

hostile = st.text(
    st.one_of(st.sampled_from(":%{}\n\0 3A25"), st.characters(exclude_categories=["Cs"]))
)


@steady
@given(hostile, hostile)
def test_tally_fields_carry_any_text(type: str, value: str) -> None:
    """Type and value come back."""
    assert read_counts({tally_field(type, value): "1"}) == {type: {value: 1}}


@steady
@given(hostile, hostile, hostile)
def test_action_fields_carry_any_text(type: str, value: str, uuid: str) -> None:
    """Type, value and uuid come back."""
    assert read_action_field(action_field(type, value, uuid)) == (type, value, uuid)


@steady
@given(hostile, hostile)
def test_each_channel_has_a_hash_tag_of_its_own(left: str, right: str) -> None:
    """The tag stands between the first two braces. Redis Cluster derives the slot from it."""
    keys = Keys()
    tags = [
        keys.counts(channel, "1").split("{", 1)[1].split("}", 1)[0] for channel in (left, right)
    ]
    assert (tags[0] == tags[1]) == (left == right)
    assert keys.head(left) == f"tally:{{{tags[0]}}}:head"


def test_keys_read_as_the_contract_says() -> None:
    """Other programs rely on these names."""
    keys = Keys()
    assert keys.counts("room", "17600000001728660") == "tally:{room}:counts:17600000001728660"
    assert keys.actions("a{b}%", "1234567890") == "tally:{a%7Bb%7D%25}:actions:1234567890"
    assert keys.removed("room", "1") == "tally:{room}:removed:1"
    assert keys.messages("room") == "tally:{room}:messages"
    assert keys.journal("room") == "tally:{room}:journal"
    assert keys.owed("room") == "tally:{room}:owed"
    assert keys.progress("room") == "tally:{room}:progress"
    assert (keys.channels, keys.budget, keys.quarantine, keys.meta) == (
        "tally:channels",
        "tally:budget",
        "tally:quarantine",
        "tally:meta",
    )
    assert tally_field("re:act", "a:b%") == "re%3Aact:a:b%"
    assert action_field("re:act", "a:b%", "u:1%") == "re%3Aact:a%3Ab%25:u:1%"


@pytest.mark.parametrize("namespace", ["", "a b", "a:b", "é", "a{b}"])
def test_a_malformed_namespace_is_refused(namespace: str) -> None:
    """The error says what it may be."""
    with pytest.raises(InvalidNameError, match="use letters, digits"):
        Keys(namespace)


def test_a_subscription_is_named_by_its_names() -> None:
    """Their order does not matter."""
    assert digest(["a", "b"]) == digest(["b", "a"])
    assert digest(["a", "b"]) != digest(["ab"])
    assert Keys().cursor(digest(["a"])).startswith("tally:cursor:")
