"""Names are shared out: no followed name begins anew, and none is followed twice."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.histories import steady
from worker.domain.shards import Shard
from worker.live.assignment import Assignment, assign
from worker.source.names import Names

ALPHABET = "abcdefghij"
SIZE = st.integers(1, 4)
NAMES = st.builds(
    Names.of, st.sets(st.sampled_from([*ALPHABET, "x.*", "y.*"])), st.sets(st.sampled_from("gh"))
)
FOLLOWED = st.lists(NAMES, max_size=4)


def numbered(followed: list[Names]) -> list[tuple[Names, int]]:
    """Return followed names, each with its number as its point."""
    return [(names, number) for number, names in enumerate(followed)]


@steady
@given(NAMES, FOLLOWED, SIZE)
def test_each_wanted_name_is_in_one_assignment(
    wanted: Names, followed: list[Names], size: int
) -> None:
    """No assignment has any other name."""
    assignments = assign(wanted, numbered(followed), size)

    assert sorted(name for assignment in assignments for name in assignment.names.all) == sorted(
        wanted.all
    )


@steady
@given(NAMES, FOLLOWED, SIZE)
def test_a_name_keeps_its_first_point(wanted: Names, followed: list[Names], size: int) -> None:
    """A name without a point joins others, or begins anew."""
    for assignment in assign(wanted, numbered(followed), size):
        for name in assignment.names.all:
            places = [number for number, names in enumerate(followed) if name in names.all]
            if assignment.resume_point is None or name in assignment.joined.all:
                assert places == []
            else:
                assert places[0] == assignment.resume_point
        if assignment.resume_point is None:
            assert not assignment.joined


@steady
@given(NAMES, FOLLOWED, SIZE)
def test_an_assignment_fits_into_one_poll(wanted: Names, followed: list[Names], size: int) -> None:
    """Its names are of one kind, as PubNub takes them."""
    for assignment in assign(wanted, numbered(followed), size):
        assert list(assignment.names.split(size)) == [assignment.names]


@steady
@given(NAMES, SIZE)
def test_an_unchanged_list_keeps_its_assignments(wanted: Names, size: int) -> None:
    """The same list leads to the same assignments."""
    parts = list(wanted.split(size))

    assert assign(wanted, numbered(parts), size) == [
        Assignment(part, number) for number, part in enumerate(parts)
    ]


def test_new_names_fill_assignments_with_room() -> None:
    """Where no assignment has room, they begin anew."""
    assignments = assign(Names.of("abcde"), [(Names.of("ab"), 1), (Names.of("c"), 2)], 2)

    assert assignments == [
        Assignment(Names.of("ab"), 1),
        Assignment(Names.of("cd"), 2, Names.of("d")),
        Assignment(Names.of("e")),
    ]


def test_ten_thousand_names_are_shared_out() -> None:
    """Followed names keep their point, and the polls are as few as possible."""
    many = Names.of(f"channel-{number}" for number in range(10_000))
    followed = list(many.split(50))[::2]

    assignments = assign(many, numbered(followed), 50)

    assert [
        assignment.names for assignment in assignments if assignment.resume_point is not None
    ] == followed
    assert len(assignments) == 200


def divided(wanted: Names, polls: list[Names], count: int) -> list[Names]:
    """Return what so many shards poll, each of which finds the cursors of these polls."""
    assignments = [
        assignment
        for index in range(count)
        for assignment in assign(wanted.of_shard(Shard(index, count)), numbered(polls), 50)
    ]
    for assignment in assignments:
        assert not assignment.joined
        assert (assignment.resume_point is None) == (not polls)
    return [assignment.names for assignment in assignments]


@pytest.mark.parametrize(
    ("path", "most"),
    [((2, 3, 2), 2), ((1, 2, 3, 4, 3, 2, 1), 7), ((1, 2, 4, 2), 7)],
)
def test_shards_hand_whole_cursors_over(path: tuple[int, ...], most: int) -> None:
    """Every name keeps its cursor, and few cursors are cut: none on the way back."""
    wanted = Names.of(f"room-{number}" for number in range(1_000))
    polls: list[Names] = []
    sizes: list[int] = []
    for count in path:
        polls = divided(wanted, polls, count)
        sizes.append(len(polls))

    assert sizes[-1] - sizes[0] <= most
    assert sorted(sizes) == sizes
