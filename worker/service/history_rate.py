"""The rate of requests for history, which SIGHUP reads again."""

from typing import Final

import structlog

from worker.reconciliation.rounds import Rounds
from worker.settings import Settings, read
from worker.store.budget import Budget
from worker.telemetry import metrics

NAME: Final = "TALLY_HISTORY_RATE"

log = structlog.get_logger(__name__)


class HistoryRate:
    """Changes the rate of a running worker.

    The environment of a process never changes, but ``.env`` may.
    """

    def __init__(self, settings: Settings, budget: Budget, rounds: Rounds) -> None:
        # Settings of a program have no source that could be read again.
        self._has_sources = bool(settings.report.sources)
        self._budget = budget
        self._rounds = rounds
        metrics.budget_rate.set(settings.history_rate)

    def reload(self) -> bool:
        """Read the rate again; tell whether there is something to say about it."""
        if not self._has_sources:
            return False
        settings, problems = read([NAME])
        if problems:
            refusal = settings.report.refusal(problems)
            log.error("history_rate_not_read", reason=str(refusal))
            return True

        before, rate = self._budget.rate, settings.history_rate
        if rate == before:
            return False
        self._budget.rate = rate
        self._rounds.set_rate(rate)
        metrics.budget_rate.set(rate)
        log.info("history_rate_changed", rate=rate, before=before)
        return True
