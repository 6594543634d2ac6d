"""Each name has one shard, in every program; a new shard takes its part and nothing else moves."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.histories import steady
from worker.domain.shards import BUCKETS, MOST_SHARDS, Shard, Share, bucket_of, order, shard_of

COUNTS = st.integers(1, 64)
BUCKET = st.integers(0, BUCKETS - 1)
NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)


@pytest.mark.parametrize(
    ("name", "bucket", "shards"),
    [
        ("room", 497, [0, 0, 0, 7, 12]),
        ("lobby", 1205, [0, 0, 0, 0, 62]),
        ("général", 3776, [0, 0, 0, 0, 72]),
        ("chat.1", 3726, [0, 0, 3, 5, 28]),
    ],
)
def test_known_names_have_known_shards(name: str, bucket: int, shards: list[int]) -> None:
    """``deploy/reference.md`` prints them, for programs that compute the same."""
    assert bucket_of(name) == bucket
    assert [shard_of(bucket, count) for count in (2, 3, 4, 8, 100)] == shards


@steady
@given(NAMES, COUNTS)
def test_each_name_has_one_shard(name: str, count: int) -> None:
    """Every shard is asked; one has it."""
    own = [index for index in range(count) if shard_of(bucket_of(name), count) == index]
    assert len(own) == 1
    assert Shard(own[0], count).has(name)


@steady
@given(BUCKET, st.integers(1, MOST_SHARDS - 1))
def test_a_bucket_moves_to_the_new_shard_only(bucket: int, count: int) -> None:
    """It stays where it is, or it goes to the shard that was added."""
    assert shard_of(bucket, count + 1) in {shard_of(bucket, count), count}


@pytest.mark.parametrize("count", [2, 3, 4, 8, 16, 32])
def test_shards_have_equal_parts(count: int) -> None:
    """None has a quarter more or less of the buckets than its part."""
    sizes = Counter(shard_of(bucket, count) for bucket in range(BUCKETS))
    part = BUCKETS / count
    assert 0.75 * part < min(sizes.values()) <= max(sizes.values()) < 1.25 * part


@pytest.mark.parametrize("count", [1, 2, 3, 4, 7, 15])
def test_a_new_shard_takes_its_part(count: int) -> None:
    """One in n + 1, within a quarter."""
    moved = sum(shard_of(bucket, count) != shard_of(bucket, count + 1) for bucket in range(BUCKETS))
    part = BUCKETS / (count + 1)
    assert 0.75 * part < moved < 1.25 * part


def test_names_have_even_buckets() -> None:
    """Names with numbers do, too: none has thrice its part."""
    buckets = Counter(bucket_of(f"room-{number}") for number in range(100_000))
    assert len(buckets) == BUCKETS
    assert max(buckets.values()) < 3 * 100_000 / BUCKETS


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_names_that_move_together_stand_together(count: int) -> None:
    """Names that leave a shard are as many rows of neighbours as there are ways to that shard."""
    names = order(f"room-{number}" for number in range(2_000))
    moves = [shard_of(bucket_of(name), count + 1) == count for name in names]
    rows = sum(moves[at] and not moves[at - 1] for at in range(1, len(moves)))
    assert rows <= 2 ** (count - 1)


@pytest.mark.parametrize("text", ["0/1", "0/3", "2/3", " 1/2 ", "1023/1024"])
def test_a_shard_is_read_as_it_is_written(text: str) -> None:
    """Blanks around it do no harm."""
    assert str(Shard.read(text)) == text.strip()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("3/3", "0/3 to 2/3"),
        ("0/0", "1 to 1024"),
        ("0/1025", "1 to 1024"),
        ("a/b", "such as 0/3"),
        ("1", "such as 0/3"),
        ("-1/3", "such as 0/3"),
        ("1/3/4", "such as 0/3"),
        ("²/3", "such as 0/3"),
        ("", "such as 0/3"),
    ],
)
def test_another_form_is_refused(text: str, words: str) -> None:
    """The sentence has the right form."""
    with pytest.raises(ValueError, match=words):
        Shard.read(text)


def shares(count: int, channels: list[str], wildcards: list[str]) -> list[Share]:
    """Return the share of each shard."""
    made = [Share(Shard(index, count)) for index in range(count)]
    for share in made:
        share.configure(channels, wildcards)
    return made


@steady
@given(
    st.sets(st.from_regex(r"[ab](\.[ab]){0,3}", fullmatch=True)),
    st.lists(st.sampled_from(["a", "a.b", "b.a.a"])),
    st.lists(st.sampled_from(["a.*", "b.*", "a.b.*"])),
    st.integers(1, 9),
)
def test_each_channel_is_kept_right_by_one_shard(
    channels: set[str], configured: list[str], wildcards: list[str], count: int
) -> None:
    """Also one of a wildcard, one of several wildcards, and one that is configured no more."""
    own = [share.own(frozenset(channels)) for share in shares(count, configured, wildcards)]
    assert sorted(name for part in own for name in part) == sorted(channels)


def test_a_room_of_a_wildcard_belongs_to_its_shard() -> None:
    """Unless it has a name of its own in the settings; the longer wildcard decides."""
    for index, share in enumerate(shares(7, ["a.named"], ["a.*", "a.b.*"])):
        shard = Shard(index, 7)
        for channel, decides in {
            "a.named": "a.named",
            "a.room": "a.*",
            "a.b.room": "a.b.*",
            "other": "other",
            "b.room": "b.room",
        }.items():
            assert share.has(channel) == shard.has(decides)


def test_without_shards_everything_is_kept_right() -> None:
    """By every worker."""
    assert Share().own(frozenset({"a", "b"})) == {"a", "b"}
    assert (Share().count, Share(Shard(0, 3)).count) == (1, 3)
