"""Forgets users: refuses their events, then deletes what is kept of them."""

import asyncio
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from typing import Final

from worker.applying.forgotten_users import FRESH_SECONDS
from worker.errors import RedisUnavailableError
from worker.store.refused_users import RefusedUsers
from worker.store.user_data import UserData
from worker.store.user_erasure import UserErasure

MARGIN_SECONDS: Final = 5.0
"""A script call that was sent in time arrives within this time."""

Pause = Callable[[float], Awaitable[None]]


@dataclass(slots=True, kw_only=True)
class ErasureReport:
    """What was deleted of the users."""

    actions: int = 0
    """Live ones, which were counted. PubNub may still list them."""
    tombstones: int = 0
    entries: int = 0
    """Entries of journals that named them."""
    letters: int = 0
    """Entries of the quarantine that named them."""


async def forget_users(
    uuids: Collection[str],
    refused: RefusedUsers,
    data: UserData,
    erasure: UserErasure,
    settle_seconds: float,
    pause: Pause = asyncio.sleep,
) -> ErasureReport:
    """Forget users. Workers may run meanwhile.

    If it is interrupted, another call completes it.

    Raises:
        RedisUnavailableError: Redis lost the request meanwhile.
    """
    report = ErasureReport()
    # First: what is refused from now on cannot come back.
    await refused.add(uuids)
    await _delete_all(data, erasure, report)
    # A process may not know it yet, and may hold events that it read before.
    await pause(FRESH_SECONDS + settle_seconds + MARGIN_SECONDS)
    await _delete_all(data, erasure, report)
    if len(await refused.since(uuids)) < len(set(uuids)):
        raise RedisUnavailableError(
            "Redis has lost the request meanwhile: it went back to an older state, "
            "or somebody took the request back. If that was not meant, type the same command again."
        )
    return report


async def _delete_all(data: UserData, erasure: UserErasure, report: ErasureReport) -> None:
    async for traces in data.traces():
        deleted = await erasure.erase(traces)
        report.actions += deleted.actions
        report.tombstones += deleted.tombstones
    # Afterwards: a prune may have journaled one of these actions meanwhile.
    async for channel, entries in data.entries():
        report.entries += await erasure.delete_entries(channel, entries)
    async for letters in data.letters():
        report.letters += await erasure.delete_letters(letters)
