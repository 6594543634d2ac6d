"""Timetokens are compared as numbers of any length, without becoming numbers."""

from hypothesis import given
from hypothesis import strategies as st

from tests.histories import steady
from worker.domain.position import from_seconds, is_after, milliseconds, shift

timetokens = st.integers(1, 10**19)


@steady
@given(timetokens, timetokens)
def test_timetokens_compare_as_their_numbers(left: int, right: int) -> None:
    """Length first, then digits, is the order of numbers."""
    assert is_after(str(left), str(right)) == (left > right)


def test_a_timetoken_counts_ten_millionths() -> None:
    """17 digits of ten-millionths of a second make 13 of milliseconds."""
    assert milliseconds("17600000001728660") == 1760000000172
    assert from_seconds(1760000000.5) == "17600000005000000"
    assert shift("17600000001728660", 1) == "17600000001728661"
    assert shift("5", -10) == "1"
