"""The results of commands, as lines for people and as JSON for programs."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict
from datetime import UTC, datetime
from itertools import filterfalse, islice
from operator import attrgetter
from typing import TYPE_CHECKING, Final

import typer

from worker.errors import ExitCode
from worker.telemetry.text import escape

if TYPE_CHECKING:  # ``--help`` loads this module, but no worker
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from worker.applying.forgetting import Forgotten
    from worker.reconciliation.report import Discrepancy, ReconcileReport, VerifyReport
    from worker.service.commands import BackfillReport
    from worker.service.doctor import Finding
    from worker.settings.shard import ShardPart
    from worker.store.audit import Inconsistency

MAX_LINES: Final = 1000
"""Of each kind of difference. The JSON has all of them."""


def print_json(document: object) -> None:
    """Print a document as one line of JSON in ASCII."""
    typer.echo(json.dumps(document, ensure_ascii=True))


def print_result(
    as_json: bool,
    document: Callable[[], object],
    lines: Iterable[str],
) -> None:
    """Print a result as JSON, or as lines for people."""
    if as_json:
        print_json(document())
    else:
        typer.echo("\n".join(lines))


def backfill_json(counts: Mapping[str, int]) -> dict[str, object]:
    """Return the actions read: of each channel, and their sum."""
    return {"channels": counts, "actions": sum(counts.values())}


def backfill_lines(
    report: BackfillReport,
    named: Iterable[str],
    *,
    is_part: bool,
) -> Iterator[str]:
    """Yield the sum of the actions read, and named channels that have none."""
    counts = report.counts
    actions = sum(counts.values())
    yield f"{actions} actions read in {len(counts)} channels."
    empty = filterfalse(counts.get, named)
    for channel in empty:
        if is_part and channel not in report.unlisted:
            yield f"{escape(channel)}: PubNub lists nothing in this range."
        else:
            yield f"{escape(channel)}: PubNub lists nothing. Is the name right?"


def forget_json(results: Sequence[Forgotten]) -> dict[str, object]:
    """Return what was deleted of each channel, and the sum."""
    channels = {result.channel: asdict(result) for result in results}
    messages = sum(result.messages for result in results)
    return {"channels": channels, "messages": messages}


def forget_lines(results: Sequence[Forgotten]) -> Iterator[str]:
    """Yield a line for each channel: what was deleted of it."""
    for result in results:
        channel = escape(result.channel)
        if result.was_known or result.messages:
            yield f"{channel}: forgotten, {result.messages} messages deleted."
        else:
            yield f"{channel}: was not known. Is the name right?"
        if result.is_back:
            yield f"{channel}: a new event came meanwhile. It is a new channel now."


def reconcile_exit_code(reports: Sequence[ReconcileReport]) -> ExitCode:
    """Return the exit code of a reconcile.

    The worst failure counts most, then a refusal, then a doubt.
    """
    codes = (report.exit_code for report in reports)
    worst = max(codes, default=ExitCode.DONE)
    if worst:
        return worst

    sums = _sums(reports)
    if sums["refused"]:
        return ExitCode.DIFFERENCES
    if sums["unproven"]:
        return ExitCode.FAILED
    return ExitCode.DONE


def reconcile_json(
    reports: Sequence[ReconcileReport],
    *,
    dry_run: bool,
) -> dict[str, object]:
    """Return the sums of a reconcile, and the report of each channel."""
    sums = _sums(reports)
    channels = {report.channel: asdict(report) for report in reports}
    return {"dry_run": dry_run, **sums, "channels": channels}


def reconcile_lines(
    reports: Sequence[ReconcileReport],
    *,
    dry_run: bool,
) -> Iterator[str]:
    """Yield a line for each channel with a problem, then the sums."""
    would = "would be " if dry_run else ""
    for report in reports:
        yield from _channel_lines(report, would)

    sums = _sums(reports)
    yield (
        f"{sums['listed']} actions listed in {len(reports)} channels, "
        f"{sums['requests']} requests: "
        f"{sums['added']} {would}added, "
        f"{sums['pruned']} {would}pruned, "
        f"{sums['restored']} {would}restored."
    )


def _sums(reports: Sequence[ReconcileReport]) -> Counter[str]:
    sums: Counter[str] = Counter()
    for report in reports:
        sums.update(report.counts)
    return sums


def _channel_lines(report: ReconcileReport, would: str) -> Iterator[str]:
    channel = escape(report.channel)
    if report.failure:
        failure = escape(report.failure)
        yield f"{channel}: not reconciled to the end: {failure}"

    counts = {
        f"{would}added": report.added,
        f"{would}pruned": report.pruned,
        f"{would}restored": report.restored,
        "messages rebuilt: Redis had lost or changed their counts": report.rebuilt,
        "in doubt: PubNub's answers did not prove enough": report.unproven,
        f"not pruned: {report.reason}": report.refused,
    }
    parts = [f"{count} {result}" for result, count in counts.items() if count]
    if parts:
        yield f"{channel}: {'; '.join(parts)}"


def verify_json(report: VerifyReport) -> dict[str, object]:
    """Return the whole report of a verify."""
    since = {channel: _moment(at) for channel, at in report.under_repair.items()}
    late = {
        channel: {"since": _moment(repair.since), "causes": repair.causes}
        for channel, repair in report.late.items()
    }
    document = asdict(report) | {"under_repair": since, "late": late}
    return {"exact": report.is_exact, **document}


def _moment(milliseconds: int) -> str | None:
    """Return a time in UTC; None if it is unknown."""
    if not milliseconds:
        return None
    moment = datetime.fromtimestamp(milliseconds / 1000, UTC)
    return moment.isoformat(timespec="seconds")


def verify_lines(report: VerifyReport) -> Iterator[str]:
    """Yield a line for each difference and each failure, then the sums."""
    discrepancies = islice(report.discrepancies, MAX_LINES)
    inconsistencies = islice(report.flaws, MAX_LINES)
    yield from map(_discrepancy_line, discrepancies)
    yield from map(_inconsistency_line, inconsistencies)

    for channel, failure in report.failures.items():
        reason = escape(failure)
        yield f"{escape(channel)}: not compared to the end: {reason}"
    if report.unproven:
        yield (
            f"{report.unproven} could not be told: "
            "PubNub's answers did not prove enough. Verify again."
        )

    yield from _late_lines(report)
    yield from _repair_lines(report)
    for channel in report.unknown:
        yield f"{escape(channel)}: no worker has ever followed this channel. Is the name right?"

    yield (
        f"{len(report.discrepancies)} differences from PubNub, "
        f"{len(report.flaws)} inside Redis; "
        f"{report.listed} actions listed, "
        f"{report.entries} entries compared in {report.channels} channels, "
        f"{report.requests} requests."
    )
    if report.has_compared_nothing:
        yield (
            "Nothing was compared. "
            "Verify leaves out actions "
            "that are younger than TALLY_SETTLE_SECONDS, "
            "of types that are not counted, "
            "or of expired messages."
        )


def _late_lines(report: VerifyReport) -> Iterator[str]:
    """Yield a line for each channel that differs and that nobody repairs in time."""
    differing = {item.channel for item in report.discrepancies}
    channels = sorted(differing & report.late.keys())
    for channel in islice(channels, MAX_LINES):
        repair = report.late[channel]
        since = _moment(repair.since) or "an unknown time"
        causes = ", ".join(map(escape, repair.causes))
        yield (
            f"{escape(channel)}: owed a repair since {since} ({causes}). "
            "It is late, or waits for a person."
        )


def _repair_lines(report: VerifyReport) -> Iterator[str]:
    """Yield a line for each channel whose differences are known, then their sum."""
    missing: Counter[str] = Counter()
    surplus: Counter[str] = Counter()
    for owed in report.owed:
        missing[owed.channel] += owed.missing
        surplus[owed.channel] += owed.surplus

    for channel in islice(missing, MAX_LINES):
        since = _moment(report.under_repair[channel])
        began = f" since {since}" if since else ""
        yield (
            f"{escape(channel)}: under repair{began}: "
            f"{missing[channel]} not counted, {surplus[channel]} too many"
        )
    if missing:
        yield (
            f"{len(report.owed)} differences in {len(missing)} channels are known. "
            f"{_who_repairs(report)}"
        )


def _who_repairs(report: VerifyReport) -> str:
    if report.has_worker:
        return "A worker repairs them: there is nothing to do."
    return "No worker runs now. Start one: it repairs them."


def _discrepancy_line(discrepancy: Discrepancy) -> str:
    parts = []
    if discrepancy.missing:
        parts.append(f"{discrepancy.missing} not counted")
    if discrepancy.surplus:
        parts.append(f"{discrepancy.surplus} too many")

    where = _place(
        discrepancy.channel,
        discrepancy.message_timetoken,
        discrepancy.type,
        discrepancy.value,
    )
    return f"{where}: {', '.join(parts)}"


def _inconsistency_line(flaw: Inconsistency) -> str:
    where = _place(flaw.channel, flaw.message_timetoken, flaw.field)
    return f"{where}: in Redis, {escape(flaw.problem)}"


def _place(*names: str) -> str:
    return " ".join(map(escape, filter(None, names)))


def config_json(settings: Mapping[str, object], part: ShardPart | None) -> dict[str, object]:
    """Return the settings, and which part of the names is the shard's."""
    return {**settings, "shard": part.as_json() if part else None}


def config_lines(settings: Iterator[str], part: ShardPart | None) -> Iterator[str]:
    """Yield the same, for people."""
    yield from settings
    if part:
        yield f"TALLY_SHARD: {part}"


def doctor_exit_code(findings: Iterable[Finding]) -> ExitCode:
    """Return the exit code of the first check that failed."""
    codes = map(attrgetter("exit_code"), findings)
    return next(filter(None, codes), ExitCode.DONE)


def doctor_json(findings: Sequence[Finding]) -> dict[str, object]:
    """Return what a doctor found, for programs."""
    code = doctor_exit_code(findings)
    checks = [
        {
            "subject": finding.subject,
            "ok": not finding.exit_code,
            "verdict": _verdict(finding).lower(),
            "text": finding.text,
        }
        for finding in findings
    ]
    return {"ok": code is ExitCode.DONE, "checks": checks}


def finding_line(finding: Finding) -> str:
    """Return what a doctor found, for people."""
    text = escape(finding.text)
    return f"{_verdict(finding):4} {finding.subject}: {text}"


def _verdict(finding: Finding) -> str:
    return "BAD" if finding.exit_code else finding.verdict
