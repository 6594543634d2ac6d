"""What Redis lacks of what it has acknowledged to this process."""

from collections.abc import Collection

from worker.store.rollback_detector import RollbackDetector
from worker.store.shard_signs import ShardSigns
from worker.store.tables import Tables


class LossFinder:
    """Compares Redis with what this process knows; writes nothing."""

    def __init__(
        self,
        rollback_detector: RollbackDetector,
        tables: Tables,
        followed: Collection[str],
        signs: ShardSigns | None,
    ) -> None:
        """``followed`` are the configured channels. ``signs`` are those of a cluster."""
        self._rollback_detector = rollback_detector
        self._acknowledged = rollback_detector.acknowledged
        self._tables = tables
        self._followed = frozenset(followed)
        self._signs = signs

    async def find(self) -> tuple[str, Collection[str]]:
        """Return what is lost, and the channels that may lack events."""
        loss = self._rollback_detector.loss
        if not loss:
            return await self._compare_positions()
        # No restart, or one that lost all of this process: nothing is proven.
        channels = await self.known_channels()
        return loss, await self._on_changed_shards(channels) or channels

    async def _compare_positions(self) -> tuple[str, Collection[str]]:
        """Compare journals and cursors with what Redis has acknowledged to this process."""
        lost = await self._without_heads()
        loss = await self._first_loss(lost)
        unknown: Collection[str] = ()
        if loss or self._signs:
            unknown = await self._tables.channels.unknown(self._acknowledged.channels)
        if unknown:
            loss = loss or "channels ever seen are gone"
        return loss, lost.union(unknown)

    async def _first_loss(self, lost: Collection[str]) -> str:
        """Say what is lost. ``lost`` are channels that lack an entry of their journal."""
        if lost:
            return "the newest journal entries of channels are gone"
        # A copy: subscriptions end while Redis is read.
        saves = dict(self._acknowledged.saves)
        if await self._tables.cursors.lost(saves):
            return "a cursor has fewer saves than before"
        return ""

    async def _on_changed_shards(self, channels: Collection[str]) -> set[str]:
        """Return the channels that a shard may have lost; none if no shard has changed."""
        if self._signs is None:
            return set()
        now, trusted = await self._signs.read(), self._rollback_detector.signs
        lost = self._signs.on_other_shards(channels, now, trusted.split())
        if lost:
            lost |= await self._without_heads()
        return lost

    async def _without_heads(self) -> set[str]:
        """Return the channels that lack an entry of their journal."""
        positions = self._acknowledged.positions()
        return await self._tables.heads.lost(positions)

    async def known_channels(self) -> set[str]:
        """Return every channel that Redis or this process knows, or that is configured."""
        held = await self._tables.channels.all()
        # Read last: a write that was under way ends meanwhile.
        return {*held, *self._acknowledged.channels, *self._followed}
