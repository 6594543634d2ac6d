"""Where a subscription, or its successor, goes on."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial

from worker.domain.position import Cursor
from worker.errors import RolledBackError
from worker.source.names import Names
from worker.store.cursors import Cursors, SavedCursor, digest
from worker.store.rollback_detector import RollbackDetector
from worker.store.script_call import CursorSave

ReadCursor = Callable[[str, Cursor | None], Awaitable[SavedCursor | None]]
"""Returns the saved cursor of a subscription; None if there is none.

It is told the newest cursor that this process knows of.
"""


@dataclass(frozen=True, slots=True)
class ResumePoint:
    """A subscription's cursor, and how far it covers the past.

    Until ``covered_until``, in seconds of the clock, nothing is missing.
    ``saves`` counts the saves of the cursor: a Redis with fewer went back.
    ``signs`` are those of a cluster's shards up to which what is before was compared.
    Another worker may have saved an older place since, with newer signs.
    """

    subscription: str
    cursor: Cursor
    covered_until: float
    saves: int
    signs: str = ""


class SubscriptionCursor:
    """The cursor of one subscription, in Redis and in memory."""

    def __init__(
        self,
        names: Names,
        cursors: Cursors,
        rollback_detector: RollbackDetector,
        clock: Callable[[], float],
        read: ReadCursor | None = None,
    ) -> None:
        """``read`` reads cursors of a cluster."""
        self._read = read
        self.subscription = digest(names.all)
        """Its name in Redis: the same for the same names."""
        self.newest: Cursor | None = None
        """The newest cursor before which every event is applied."""
        self.covered_until: float | None = None
        """When PubNub sent that cursor, in seconds of the clock."""
        self._names = names
        self._cursors = cursors
        self._rollback_detector = rollback_detector
        self._clock = clock
        self._generation = rollback_detector.generation
        self._saves = 0
        self._is_saved = False

    @property
    def resume_point(self) -> ResumePoint | None:
        """Where a successor goes on; None if nothing was read yet."""
        newest, covered_until = self.newest, self.covered_until
        if newest is None or covered_until is None:
            return None
        # Whatever is before it was compared whenever a shard changed.
        signs = self._rollback_detector.signs_to_save
        return ResumePoint(self.subscription, newest, covered_until, self._saves, signs)

    def end(self) -> None:
        """Expect nothing more of this cursor in Redis."""
        self._cursors.forget(self.subscription)

    def trust_redis(self) -> None:
        """Trust Redis as it is now."""
        self._generation = self._rollback_detector.generation

    async def register(self) -> None:
        """Write down which names the cursor stands for."""
        await self._cursors.register(self.subscription, self._names.all)

    async def adopt(self, point: ResumePoint) -> None:
        """Save another subscription's cursor as this one's.

        Raises:
            RolledBackError: Redis has forgotten that cursor.
        """
        known = await self._cursors.read(point.subscription)
        if known is None or known.saves < point.saves:
            raise self._forgotten(point.subscription)

        age = partial(self.age_of, point)
        save = CursorSave(self.subscription, point.cursor, age=age, signs=point.signs)
        await self._cursors.save(save)

    def age_of(self, point: ResumePoint) -> float:
        """Return how many seconds ago PubNub sent a cursor."""
        return self._clock() - point.covered_until

    async def load(self) -> Cursor | None:
        """Return the saved cursor; None if there is none."""
        saved = await self._read_saved()
        if saved is None:
            self._saves = 0
            self.newest = None
            self.covered_until = None
        else:
            self._saves = saved.saves
            self.newest = saved.cursor
            self.covered_until = self._clock() - saved.age_seconds
        return self.newest

    async def _read_saved(self) -> SavedCursor | None:
        if self._read:
            return await self._read(self.subscription, self.newest)
        return await self._cursors.read(self.subscription)

    def next_save(self, cursor: Cursor, covered_until: float) -> CursorSave:
        """Return what saves a cursor.

        It raises as ``expect_the_same_redis`` does.
        """

        def age() -> float:
            self.expect_the_same_redis()
            return self._clock() - covered_until

        signs = self._rollback_detector.signs_to_save
        return CursorSave(self.subscription, cursor, self._saves, age, signs)

    async def saved(self, save: CursorSave, covered_until: float) -> None:
        """Go on from a cursor that was saved.

        Raises:
            RolledBackError: Redis has forgotten what this process knows.
        """
        if not self._is_saved:
            # The cursor before may have been so old that its registration is gone.
            await self.register()
            self._is_saved = True
        if not save.number:
            raise self._forgotten(self.subscription)
        self._saves = save.number
        self.newest = save.cursor
        self.covered_until = covered_until

    def expect_the_same_redis(self) -> None:
        """Check that Redis did not go back since ``trust_redis``.

        Raises:
            RolledBackError: it did.
        """
        if self._rollback_detector.generation != self._generation:
            raise RolledBackError("Redis went back; going on from what it still knows")

    def _forgotten(self, subscription: str) -> RolledBackError:
        reason = f"a cursor of subscription {subscription} is gone"
        self._rollback_detector.suspect(reason)
        return RolledBackError("Redis has forgotten a cursor that was saved")
