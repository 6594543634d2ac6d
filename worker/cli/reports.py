"""What reconcile and verify have to say, for a person and as JSON."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any, Final

from worker.errors import ExitCode
from worker.reconciliation.reconcile import ReconcileReport
from worker.reconciliation.verify import VerifyReport
from worker.telemetry.text import escape

SHOWN: Final = 1000
"""Differences told in words; all of them are in the JSON."""


def reconciled_code(reports: Sequence[ReconcileReport]) -> ExitCode:
    """Return how a reconcile ended: failed, refused to prune, left in doubt, or done."""
    if failed := [report.exit_code for report in reports if report.failure]:
        return max(failed)
    if any(report.refused for report in reports):
        return ExitCode.DIFFERENCES
    return ExitCode.FAILED if any(report.unproven for report in reports) else ExitCode.DONE


def reconciled_json(reports: Sequence[ReconcileReport], *, dry_run: bool) -> dict[str, Any]:
    """Return all there is to tell about a reconcile: the sums, and each channel."""
    explanation = {report.channel: asdict(report) for report in reports}
    names = [name for name, value in asdict(ReconcileReport("")).items() if type(value) is int]
    sums = {name: sum(each[name] for each in explanation.values()) for name in names}
    return {"dry_run": dry_run, **sums, "channels": explanation}


def reconciled_lines(reports: Sequence[ReconcileReport], *, dry_run: bool) -> Iterator[str]:
    """Yield a line for each channel where something was amiss, and the sums."""
    would = "would be " if dry_run else ""
    for report in reports:
        parts = [
            (report.added, f"{would}added"),
            (report.pruned, f"{would}pruned"),
            (report.restored, f"{would}restored"),
            (report.unproven, "in doubt: PubNub's answers did not prove enough"),
            (
                report.refused,
                "not pruned: too many at once; look whether PubNub lists them, then use --force",
            ),
        ]
        if report.failure:
            yield f"{escape(report.channel)}: not reconciled to the end: {escape(report.failure)}"
        if said := "; ".join(f"{count} {what}" for count, what in parts if count):
            yield f"{escape(report.channel)}: {said}"
    sums = reconciled_json(reports, dry_run=dry_run)
    yield (
        f"{sums['listed']} actions listed in {len(reports)} channels, {sums['requests']} requests: {sums['added']} "
        f"{would}added, {sums['pruned']} {would}pruned, {sums['restored']} {would}restored."
    )


def verified_json(found: VerifyReport) -> dict[str, Any]:
    """Return all there is to tell about a verify."""
    return {"exact": found.is_exact, **asdict(found)}


def verified_lines(found: VerifyReport) -> Iterator[str]:
    """Yield a line for each difference, and the sums."""
    for each in found.discrepancies[:SHOWN]:
        what = [
            f"{each.missing} not counted" * bool(each.missing),
            f"{each.surplus} too many" * bool(each.surplus),
        ]
        yield (
            f"{escape(each.channel)} {each.message_timetoken} {escape(each.type)} {escape(each.value)}: "
            + ", ".join(filter(None, what))
        )
    for flaw in found.flaws[:SHOWN]:
        yield f"{escape(flaw.channel)} {escape(flaw.message_timetoken)} {escape(flaw.field)}: in Redis, {flaw.problem}"
    for channel, failure in found.failures.items():
        yield f"{escape(channel)}: not compared to the end: {escape(failure)}"
    if found.unproven:
        yield f"{found.unproven} could not be told: PubNub's answers did not prove enough. Verify again."
    yield (
        f"{len(found.discrepancies)} differences from PubNub, {len(found.flaws)} inside Redis; {found.listed} actions "
        f"listed, {found.entries} entries compared in {found.channels} channels, {found.requests} requests."
    )
