"""``tally backfill``, ``reconcile`` and ``verify``: the commands that read PubNub's history."""

import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TypeVar

from worker.applying.retry import ProgressWatcher
from worker.cli.interrupts import finish
from worker.cli.output import print_json, print_lines
from worker.cli.progress import shown_progress
from worker.cli.reports import (
    backfill_json,
    backfill_lines,
    reconcile_exit_code,
    reconcile_json,
    reconcile_lines,
    verify_json,
    verify_lines,
)
from worker.cli.settings import load_connecting_settings
from worker.domain.position import Range
from worker.errors import ConfigurationError, ExitCode
from worker.reconciliation.reconcile import ReconcileOptions
from worker.service.commands import run_backfill, run_reconcile, run_verify
from worker.telemetry import metrics

Result = TypeVar("Result")


def replay_history(
    channels: Sequence[str],
    wanted: Range,
    *,
    as_json: bool,
    allow_eviction: bool,
) -> None:
    """Replay a range of PubNub's history into the tallies.

    No channels: all that are configured or were ever seen.
    """
    settings = load_connecting_settings()
    counts = _finish_with_progress(
        lambda watcher: run_backfill(
            settings, channels, wanted, watcher, allow_eviction=allow_eviction
        )
    )
    if as_json:
        print_json(backfill_json(counts))
    else:
        print_lines(backfill_lines(counts))


def reconcile_tallies(
    channels: Sequence[str],
    wanted: Range,
    *,
    force: bool,
    dry_run: bool,
    as_json: bool,
    allow_eviction: bool,
) -> ExitCode:
    """Make the tallies of a range equal to PubNub's list."""
    settings = load_connecting_settings()
    reports = _finish_with_progress(
        lambda watcher: run_reconcile(
            settings,
            channels,
            wanted,
            ReconcileOptions(force=force, dry_run=dry_run),
            watcher,
            allow_eviction=allow_eviction,
        )
    )
    if as_json:
        print_json(reconcile_json(reports, dry_run=dry_run))
    else:
        print_lines(reconcile_lines(reports, dry_run=dry_run))
    return reconcile_exit_code(reports)


def verify_tallies(
    channels: Sequence[str],
    sample: float,
    *,
    as_json: bool,
    metrics_file: Path | None,
) -> ExitCode:
    """Compare tallies with PubNub's list.

    ``sample`` is the part of each channel's past that is compared, from 0 to 1.
    """
    settings = load_connecting_settings()
    report = _finish_with_progress(lambda watcher: run_verify(settings, channels, sample, watcher))
    if metrics_file:
        _write_metrics(metrics_file, is_everything=report.is_whole and not channels)
    if as_json:
        print_json(verify_json(report))
    else:
        print_lines(verify_lines(report))
    return report.exit_code


def _finish_with_progress(work: Callable[[ProgressWatcher | None], Awaitable[Result]]) -> Result:
    """Finish the work, and show its progress if standard error is a terminal."""
    if not sys.stderr.isatty():
        return finish(work(None))

    async def work_with_progress() -> Result:
        with shown_progress() as watcher:
            return await work(watcher)

    return finish(work_with_progress())


def _write_metrics(path: Path, *, is_everything: bool) -> None:
    if is_everything:
        metrics.verified.set_to_current_time()
    try:
        metrics.write_verified(path)
    except OSError as error:
        raise ConfigurationError(
            f"--metrics-file {path}: it cannot be written ({error.strerror})."
        ) from None
