"""Sharing names out: nobody who is followed begins anew, and nobody is followed twice."""

from hypothesis import given
from hypothesis import strategies as st

from tests.histories import steady
from worker.live.assignment import Assignment, assign
from worker.source.names import Names

ALPHABET = "abcdefghij"
SIZE = st.integers(1, 4)
NAMES = st.builds(
    Names.of,
    st.sets(st.sampled_from([*ALPHABET, "x.*", "y.*"])),
    st.sets(st.sampled_from("gh")),
)
FOLLOWED = st.lists(NAMES, max_size=4)


def numbered(followed: list[Names]) -> list[tuple[Names, int]]:
    """Give each its number as its place."""
    return [(names, number) for number, names in enumerate(followed)]


@steady
@given(NAMES, FOLLOWED, SIZE)
def test_each_wanted_name_is_in_one_lot(wanted: Names, followed: list[Names], size: int) -> None:
    """And no other is in any."""
    assignments = assign(wanted, numbered(followed), size)

    assert sorted(name for assignment in assignments for name in assignment.names.all) == sorted(
        wanted.all
    )


@steady
@given(NAMES, FOLLOWED, SIZE)
def test_a_name_goes_on_from_the_first_place_it_has(
    wanted: Names, followed: list[Names], size: int
) -> None:
    """Who has none joins, or begins anew."""
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
def test_no_lot_is_too_large_for_one_poll(wanted: Names, followed: list[Names], size: int) -> None:
    """Each is a subscription as PubNub takes it, of one kind."""
    for assignment in assign(wanted, numbered(followed), size):
        assert list(assignment.names.split(size)) == [assignment.names]


@steady
@given(NAMES, SIZE)
def test_what_has_not_changed_stays_as_it_is(wanted: Names, size: int) -> None:
    """The same list, shared out again: the same lots."""
    parts = list(wanted.split(size))

    assert assign(wanted, numbered(parts), size) == [
        Assignment(part, number) for number, part in enumerate(parts)
    ]


def test_new_names_fill_what_has_room() -> None:
    """And begin anew where nothing has."""
    assignments = assign(Names.of("abcde"), [(Names.of("ab"), 1), (Names.of("c"), 2)], 2)

    assert assignments == [
        Assignment(Names.of("ab"), 1),
        Assignment(Names.of("cd"), 2, Names.of("d")),
        Assignment(Names.of("e")),
    ]


def test_a_list_of_ten_thousand_is_shared_out() -> None:
    """Whoever is followed goes on as it was, and the others begin anew, all in as few polls as may be."""
    many = Names.of(f"channel-{number}" for number in range(10_000))
    followed = list(many.split(50))[::2]

    assignments = assign(many, numbered(followed), 50)

    assert [
        assignment.names for assignment in assignments if assignment.resume_point is not None
    ] == followed
    assert len(assignments) == 200
