"""Names that PubNub refuses are refused before a request."""

import re

import pytest

from worker.errors import ConfigurationError
from worker.source.names import Names, channel, matches


@pytest.mark.parametrize(
    "name",
    ["room", "room-pnpres", "a.b", "ünïcödé👍", "..a", "x" * 92, "a{b}%", "a'b\"", "sub-c_1@2"],
)
def test_a_good_name_is_kept(name: str) -> None:
    """PubNub accepts it, too."""
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
    """The error is printable."""
    with pytest.raises(ConfigurationError) as refused:
        Names.of([name])
    assert str(refused.value).isprintable()


@pytest.mark.parametrize("name", ["*", ".*", "a.b.c.*", "a..*", "a*.*"])
def test_an_unknown_wildcard_is_refused(name: str) -> None:
    """PubNub has only ``a.*`` and ``a.b.*``."""
    with pytest.raises(ConfigurationError):
        Names.of([name])


@pytest.mark.parametrize("name", ["news*", "news.sport*"])
def test_a_prefix_is_corrected_to_a_wildcard(name: str) -> None:
    """Other programs take it for one. What the sentence asks for is accepted."""
    meant = f"{name[:-1]}.*"

    with pytest.raises(ConfigurationError, match=re.escape(f"Is {meant} meant?")):
        Names.of([name])
    assert Names.of([meant]).wildcards == (meant,)


def test_names_are_channels_wildcards_and_groups() -> None:
    """Each comes once, in order."""
    names = Names.of(["b", "a", "a", "x.*"], ["g"])
    assert names == Names(("a", "b"), ("x.*",), ("g",))
    assert names.all == ("a", "b", "x.*", ":g")
    assert names.without(frozenset({"a", ":g"})) == Names(("b",), ("x.*",))


def test_subscriptions_have_a_bounded_number_of_names() -> None:
    """Every name is in one. Channels are apart from wildcards and groups."""
    names = Names.of([*(f"c{n}" for n in range(7)), "x.*", "y.*"], ["g", "h"])
    parts = list(names.split(3))
    assert [len(part.all) for part in parts] == [3, 3, 1, 2, 2]
    assert sorted(name for part in parts for name in part.all) == sorted(names.all)
    assert list(Names().split(3)) == []
    assert not Names()
    assert all(parts)


def test_a_subscription_fits_into_a_request() -> None:
    """It has ten groups at most, and fewer names if they are long."""
    groups = Names.of([], [f"g{n}" for n in range(23)])
    assert [len(part.groups) for part in groups.split(50)] == [10, 10, 3]
    long = Names.of([f"{n:02}" + "日" * 90 for n in range(50)])
    assert [len(part.channels) for part in long.split(50)] == [29, 21]


def test_a_wildcard_matches_below_its_prefix() -> None:
    """The dot is part of the prefix."""
    assert matches("a.*", "a.b")
    assert matches("a.*", "a.b.c")
    assert not matches("a.*", "ab")
