"""A channel that is forgotten while workers run."""

import pytest

from tests.bench.bench import Bench
from worker.applying.forgetting import Forgotten, forget
from worker.store.pending_repairs import GapCause


async def test_a_channel_that_is_back_is_marked_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker has repaired it already. What that repair wrote is among what was deleted."""

    async def clear(channel: str) -> int:
        await bench.tables.pending.mark([channel], GapCause.NEW_CHANNEL)
        await bench.tables.channels.add([channel])
        marks = await bench.tables.pending.read(channel)
        await bench.tables.pending.clear(channel, marks)
        return 3

    monkeypatch.setattr(bench.store, "clear", clear)
    await bench.tables.channels.add(["hall"])

    forgotten = await forget("hall", bench.tables, bench.store)

    assert forgotten == Forgotten("hall", was_known=True, messages=3, is_back=True)
    assert set(await bench.tables.pending.read("hall")) == {"new_channel"}
