"""Counts of a message, by type and value."""

from collections.abc import Iterator, Mapping

Counts = Mapping[str, Mapping[str, int]]
"""type → value → count of one message. A count below 1 is not there."""

TallyKey = tuple[str, str, str, str]
"""Channel, message timetoken, type, value."""


def by_count(counts: Counts) -> Iterator[tuple[str, str, int]]:
    """Yield type, value and count.

    Types come in order, the values of a type most frequent first.
    """
    for type, values in sorted(counts.items()):
        most_first = sorted(values.items(), key=_most_first)
        for value, count in most_first:
            yield type, value, count


def _most_first(value_and_count: tuple[str, int]) -> tuple[int, str]:
    value, count = value_and_count
    return -count, value
