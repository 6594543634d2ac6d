"""``tally run`` and ``tally doctor``: the worker itself, and whether it could run."""

from collections.abc import Sequence

import typer

from worker.cli.interrupts import finish
from worker.cli.output import print_json
from worker.cli.settings import configure_log
from worker.errors import ExitCode
from worker.service.commands import run_doctor, run_worker
from worker.service.doctor import Finding
from worker.settings import Settings
from worker.settings.checks import FOLLOW, load, load_usable, warn_of_unknown
from worker.telemetry.text import escape


def follow_channels(*, allow_eviction: bool) -> ExitCode:
    """Follow the configured channels until a signal stops the worker."""
    settings = load(FOLLOW)
    configure_log(settings)
    warn_of_unknown(settings)
    return finish(run_worker(settings, allow_eviction=allow_eviction))


def diagnose(*, as_json: bool, allow_eviction: bool) -> ExitCode:
    """Check configuration, PubNub and Redis; return the exit code of the first failure."""
    settings = load_usable(FOLLOW)
    configure_log(settings, is_quiet=True)
    findings = finish(_examine(settings, as_json=as_json, allow_eviction=allow_eviction))

    exit_code = _exit_code(findings)
    if as_json:
        print_json({"ok": not exit_code, "checks": list(map(_finding_json, findings))})
    return exit_code


async def _examine(settings: Settings, *, as_json: bool, allow_eviction: bool) -> list[Finding]:
    findings = []
    async for finding in run_doctor(settings, allow_eviction=allow_eviction):
        findings.append(finding)
        if not as_json:
            typer.echo(_finding_line(finding))
    return findings


def _exit_code(findings: Sequence[Finding]) -> ExitCode:
    for finding in findings:
        if finding.exit_code:
            return finding.exit_code
    return ExitCode.DONE


def _finding_line(finding: Finding) -> str:
    verdict = "BAD " if finding.exit_code else "ok  "
    return f"{verdict} {finding.subject}: {escape(finding.text)}"


def _finding_json(finding: Finding) -> dict[str, object]:
    return {"subject": finding.subject, "ok": not finding.exit_code, "text": finding.text}
