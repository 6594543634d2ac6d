"""What holds for every history."""

from collections import Counter
from itertools import groupby
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tests.histories import events, observed, steady
from tests.ledger import Ledger
from worker.domain.action import Event, Identity, Observed
from worker.domain.entry import Entry


def counts_of(ledger: Ledger) -> dict[tuple[str, str, str], int]:
    """Return the ledger's counts of every message its entries know."""
    messages = {identity.message_timetoken for identity in ledger.entries}
    return {
        (message, type, value): count
        for message in messages
        for type, values in ledger.counts("room", message).items()
        for value, count in values.items()
    }


def live_entries(entries: dict[Identity, Entry]) -> dict[tuple[str, str, str], int]:
    """Return what the counts must be: the live entries, counted."""
    return dict(
        Counter(
            (i.message_timetoken, i.type, i.value) for i, entry in entries.items() if entry.live
        )
    )


@steady
@given(st.lists(observed, max_size=30), st.data())
def test_any_order_and_repetition_end_alike(history: list[Observed], data: st.DataObject) -> None:
    """Observed events are a join: shuffled, repeated, split into batches, they end alike."""
    once, again = Ledger(), Ledger()
    repeated = (
        history + data.draw(st.lists(st.sampled_from(history), max_size=20)) if history else []
    )
    shuffled = data.draw(st.permutations(repeated))
    cuts: list[Any] = data.draw(
        st.lists(st.integers(0, 5), min_size=len(shuffled), max_size=len(shuffled))
    )

    once.apply(history)
    for _, batch in groupby(zip(cuts, shuffled, strict=True), key=lambda pair: pair[0]):
        again.apply([event for _, event in batch])

    assert again.entries == once.entries
    assert counts_of(again) == counts_of(once)


@steady
@given(st.lists(events, max_size=40))
def test_counts_equal_live_entries_at_every_step(history: list[Event]) -> None:
    """Each count is the number of live entries under it, and none below 1 is kept."""
    ledger = Ledger()

    for event in history:
        ledger.apply([event])

        assert counts_of(ledger) == live_entries(ledger.entries)
        assert all(count >= 1 for count in counts_of(ledger).values())
