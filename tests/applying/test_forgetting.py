"""A channel that is forgotten while workers run."""

from typing import Any

import pytest

from tests.bench.bench import Bench
from tests.histories import CHANNEL, added
from worker.applying.forgetting import Forgotten, forget
from worker.domain.action import Origin
from worker.domain.position import Cursor
from worker.store.pending_repairs import GapCause
from worker.store.script_call import CursorSave
from worker.store.scripts import call_script


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


async def test_a_lost_answer_does_not_hide_a_forgotten_channel(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The script ran, and redis-py sends it again: the second answer shows a full index."""
    cursor = CursorSave("s", Cursor("17600000002020755", 1))

    async def lost(*args: Any) -> Any:
        await call_script(*args)
        return await call_script(*args)

    monkeypatch.setattr("worker.store.store.call_script", lost)
    await bench.applier.apply([added(1)], Origin.LIVE, bench.clock(), cursors=[cursor])

    assert await bench.tables.channels.all() == {CHANNEL}
    assert set(await bench.tables.pending.read(CHANNEL)) == {"new_channel"}
    assert cursor.number
