"""One look of a round: compares a channel, and plans what follows from it."""

import asyncio
from typing import Final

import structlog

from worker.domain.position import milliseconds
from worker.errors import (
    FatalError,
    RedisUnavailableError,
    StaleError,
    TallyError,
)
from worker.reconciliation.reconcile import (
    ReconcileOptions,
    Reconciler,
    ReconcileReport,
)
from worker.reconciliation.repair_queue import RepairQueue
from worker.reconciliation.schedule import Look, Schedule
from worker.store.proofs import Proofs
from worker.telemetry.throttled_warning import ThrottledWarning

RETRY_SECONDS: Final = 10.0
"""Seconds until a look is repeated that Redis has failed."""
RESUMED: Final = ReconcileOptions(resumes=True)
"""A look at everything that a kill interrupted goes on."""

log = structlog.get_logger(__name__)


class Looks:
    """Makes looks, and hands over to the repair queue what they leave in doubt."""

    def __init__(
        self,
        reconciler: Reconciler,
        repair_queue: RepairQueue,
        proofs: Proofs,
        schedule: Schedule,
    ) -> None:
        self._reconciler = reconciler
        self._repair_queue = repair_queue
        self._proofs = proofs
        self._schedule = schedule
        self._warning = ThrottledWarning(
            log,
            "reconcile_failed",
            "reconcile_works_again",
            reconciler.clock,
        )

    async def make(self, look: Look) -> bool:
        """Make a look; return whether its channel could be compared."""
        report = await self._reconcile(look)
        if report is None:
            return False
        channel = look.channel
        if not report.is_settled:
            self._repair_queue.nudge([channel])
        if report.pruned:
            now = milliseconds(report.proven_until)
            until = self._schedule.recheck(channel, now)
            await self._proofs.set_back(channel, until)
        return True

    async def _reconcile(self, look: Look) -> ReconcileReport | None:
        """Return the report; None if this channel fails."""
        channel = look.channel
        while True:
            try:
                report = await self._reconciler.channel(
                    channel,
                    look.wanted,
                    RESUMED,
                )
            except (RedisUnavailableError, StaleError) as error:
                self._warning.failing(channel, channel=channel, reason=str(error))
                await asyncio.sleep(RETRY_SECONDS)
            except FatalError:
                raise
            except TallyError as error:
                # It is not proven, so the next round tries it again, after all others.
                self._warning.failing(channel, channel=channel, reason=str(error))
                self._warning.drop(channel)
                return None
            else:
                self._warning.recovered(channel)
                return report
