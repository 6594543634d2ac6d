"""What is asked of a reconcile, and what it answers."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from worker.domain.reconciliation import Limit
from worker.errors import ExitCode


@dataclass(slots=True, kw_only=True)
class ReconcileReport:
    """What a reconcile did in one channel; after a dry run, what it would have done."""

    channel: str
    listed: int = 0
    """Actions PubNub listed in the range."""
    entries: int = 0
    """Entries that were live in Redis in the range, and old enough to be judged."""
    added: int = 0
    pruned: int = 0
    restored: int = 0
    unproven: int = 0
    """Entries of which neither presence nor absence could be proven."""
    refused: int = 0
    """Entries that were not pruned because they are more than the limit."""
    owed: int = 0
    """Marks that are left."""
    requests: int = 0
    failure: str = ""
    """Why the reconcile did not come to its end; empty if it did."""
    exit_code: ExitCode = ExitCode.DONE

    @property
    def is_in_doubt(self) -> bool:
        """Whether something could not be proven, or was not allowed."""
        return bool(self.unproven or self.refused)

    @property
    def is_settled(self) -> bool:
        """Whether nothing must be looked at again.

        A restored action must: its removal may still be on its way.
        """
        return not (self.is_in_doubt or self.restored)

    @property
    def result(self) -> str:
        """How the reconcile ended, in a word."""
        if self.refused:
            return "refused"
        return "unproven" if self.unproven else "settled"


@dataclass(frozen=True, slots=True)
class ReconcileOptions:
    """What a person may ask of a reconcile."""

    force: bool = False
    """Prune however much it is."""
    dry_run: bool = False
    """Write nothing."""


@dataclass(frozen=True, slots=True)
class ReconcilePolicy:
    """What every reconcile keeps to."""

    settle_seconds: float
    limit: Limit
    clock: Callable[[], float]
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
