"""The recovery from a Redis that was restarted, replaced or put back to an older state."""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Final, Protocol

import structlog

from worker.applying.losses import LossFinder
from worker.store.ownership import Ownership
from worker.store.pending_repairs import GapCause
from worker.store.rollback_detector import RollbackDetector
from worker.store.shard_signs import ShardSigns, changed_servers
from worker.store.tables import Tables

RUN_TRIES: Final = 3
"""Connections that are made in search of the run that was met."""

log = structlog.get_logger(__name__)


class Pool(Protocol):
    """Connections to Redis, as redis-py pools them."""

    async def disconnect(self) -> None:
        """End them all, also those in use."""


class RollbackRecovery:
    """Lets Redis be compared with what this process knows; marks what is lost."""

    def __init__(
        self,
        rollback_detector: RollbackDetector,
        tables: Tables,
        ownership: Ownership,
        followed: Collection[str],
        pools: Sequence[Pool] = (),
        signs: ShardSigns | None = None,
    ) -> None:
        """``tables`` and ``ownership`` are on a client that accepts every server.

        ``followed`` are the configured channels.
        ``pools`` may still lead to the old server. ``signs`` are those of a cluster.
        """
        self._losses = LossFinder(rollback_detector, tables, followed, signs)
        self._signs = signs
        self._rollback_detector = rollback_detector
        self._acknowledged = rollback_detector.acknowledged
        self._tables = tables
        self._ownership = ownership
        self._pools = pools
        self._turn = asyncio.Lock()
        self._listeners: list[Callable[[Collection[str]], None]] = []

    def add_listener(self, listener: Callable[[Collection[str]], None]) -> None:
        """Call this with the channels that are owed a repair, from now on."""
        self._listeners.append(listener)

    async def run(self) -> None:
        """Trust Redis again, after what it lost is marked.

        Raises:
            RedisUnavailableError: Redis is away, and still under suspicion.
            RedisUnfitError: the namespace has another owner now.
        """
        async with self._turn:
            if self._rollback_detector.is_suspect:
                await self._recover()

    async def _recover(self) -> None:
        """Compare, mark what is lost, go on, and say what is owed now."""
        detector = self._rollback_detector
        detector.begin_comparison()
        # Read first: so a server that takes its place meanwhile is noticed.
        run_id = await self._suspected_run()
        servers = await self._changed_servers()
        # Claimed before anything else is written. In a cluster each process sees a loss itself.
        has_lost = bool(detector.loss) and not detector.is_cluster
        if not await self._ownership.claim(has_lost=has_lost):
            detector.suspect("Redis lacks the claim of this process")
        await self._mark_again()
        loss, channels = await self._losses.find()
        if loss:
            log.error("redis_went_back", reason=loss, channels=len(channels))
            await self._mark_lost(channels)
        # All marks: if the end of a repair is lost, its mark is there again.
        owed = await self._tables.pending.read_all(await self._losses.known_channels())
        if loss:
            await self._accept(run_id)
        else:
            self._trust(run_id, servers)
        for listener in self._listeners:
            listener(owed)

    async def _accept(self, run_id: str | None) -> None:
        """Go on with what Redis still has."""
        heads: Mapping[str, str] = {}
        if self._rollback_detector.is_cluster:
            # Whatever is lost from here on will show.
            heads = await self._tables.heads.read(await self._losses.known_channels())
        self._rollback_detector.accept(run_id)
        self._acknowledged.note_heads(heads)

    async def _suspected_run(self) -> str | None:
        """Return the run that answers, rather another than before.

        Behind a proxy each new connection may lead to another server.
        """
        detector = self._rollback_detector
        run_id: str | None = None
        for _ in range(RUN_TRIES):
            for pool in self._pools:
                await pool.disconnect()
            run_id = await self._tables.server.run_id()
            if detector.loss or not detector.is_current(run_id):
                break
        return run_id

    async def _mark_again(self) -> None:
        """Write the newest marks again: nothing proves them."""
        marks: defaultdict[str, set[str]] = defaultdict(set)
        for channel, causes in self._acknowledged.marks.items():
            for cause in causes:
                marks[cause].add(channel)
        for cause, channels in marks.items():
            await self._tables.owe(channels, GapCause(cause), is_new=False)

    def _trust(self, run_id: str | None, servers: Sequence[str]) -> None:
        """Go on: nothing that was acknowledged is lost."""
        detector = self._rollback_detector
        is_new = detector.trust(run_id)
        if detector.ignores_runs:
            log.warning("redis_runs_differ")
        elif is_new:
            log.warning("redis_restarted", servers=servers)

    async def _changed_servers(self) -> list[str]:
        """Return the servers that were restarted, or took over: host and port."""
        detector = self._rollback_detector
        if not self._signs:
            return [detector.server]
        signs = await self._signs.read()
        return changed_servers(signs, detector.signs.split())

    async def _mark_lost(self, channels: Collection[str]) -> None:
        """Mark what is lost, before anything else is written."""
        # A cursor that proved marks may be lost, and they with it.
        held = await self._tables.cursors.held(self._acknowledged.proving_subscriptions)
        self._acknowledged.doubt_saves(held)
        await self._mark_again()
        if channels:
            cause = GapCause.REDIS_WENT_BACK
            await self._tables.owe(channels, cause)
            self._acknowledged.note_marks(cause, channels)
