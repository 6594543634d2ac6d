"""Names PubNub would refuse are refused before it is asked."""

import pytest

from worker.errors import ConfigurationError
from worker.source.names import Names, channel, matches


@pytest.mark.parametrize(
    "name",
    ["room", "room-pnpres", "a.b", "ünïcödé👍", "..a", "x" * 92, "a{b}%", "a'b\"", "sub-c_1@2"],
)
def test_a_good_name_is_kept(name: str) -> None:
    """Anything PubNub takes is taken."""
    assert channel(name) == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "a,b",
        "a:b",
        "a*",
        "a/b",
        "a\\b",
        "a b",
        "a\nb",
        "a\0",
        "\x9bm",
        "x" * 93,
        "\ud83d",
        "a.*.b",
    ],
)
def test_a_bad_name_is_refused(name: str) -> None:
    """The sentence is fit for a terminal."""
    with pytest.raises(ConfigurationError) as refused:
        Names.of([name])
    assert str(refused.value).isprintable()


@pytest.mark.parametrize("name", ["*", ".*", "a.b.c.*", "a..*", "a*.*"])
def test_a_wildcard_pubnub_does_not_know_is_refused(name: str) -> None:
    """Only a.* and a.b.* exist."""
    with pytest.raises(ConfigurationError):
        Names.of([name])


def test_names_are_sorted_out() -> None:
    """Channels, wildcards and groups; each once, in order."""
    names = Names.of(["b", "a", "a", "x.*"], ["g"])
    assert names == Names(("a", "b"), ("x.*",), ("g",))
    assert names.all == ("a", "b", "x.*", ":g")
    assert names.without(frozenset({"a", ":g"})) == Names(("b",), ("x.*",))


def test_subscriptions_have_a_bounded_number_of_names() -> None:
    """Every name is in one; wildcards and groups do not share with channels, whose number is known."""
    names = Names.of([*(f"c{n}" for n in range(7)), "x.*", "y.*"], ["g", "h"])
    parts = list(names.split(3))
    assert [len(part.all) for part in parts] == [3, 3, 1, 2, 2]
    assert sorted(name for part in parts for name in part.all) == sorted(names.all)
    assert list(Names().split(3)) == []
    assert not Names()
    assert all(parts)


def test_a_subscription_fits_into_a_request() -> None:
    """Ten groups at most, and no request line of more than 32 KiB, however long the names are."""
    assert [len(part.groups) for part in Names.of([], [f"g{n}" for n in range(23)]).split(50)] == [
        10,
        10,
        3,
    ]
    long = Names.of([f"{n:02}" + "日" * 90 for n in range(50)])
    assert [len(part.channels) for part in long.split(50)] == [29, 21]


def test_a_wildcard_matches_below_its_prefix() -> None:
    """The dot belongs to the prefix."""
    assert matches("a.*", "a.b")
    assert matches("a.*", "a.b.c")
    assert not matches("a.*", "ab")
