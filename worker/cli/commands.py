"""Every command: its options, its work, and what it prints.

A command loads what it needs when it runs.
So ``tally --help`` and ``tally run --help`` load neither PubNub nor Redis, and are quick.
"""

import sys
from typing import TYPE_CHECKING

import typer

from worker.cli import options, reports
from worker.cli.arguments import check_message_timetoken, range_between
from worker.cli.interrupts import finish
from worker.cli.reports import print_json, print_result
from worker.errors import ConfigurationError, ExitCode

if TYPE_CHECKING:
    from worker.settings import Settings

app = typer.Typer(
    name="tally", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False
)


@app.callback()
def tally(version: options.Version = False) -> None:
    """Exact reaction counts for PubNub message actions, kept in Redis.

    Settings come from the environment.
    """


@app.command()
def run(allow_eviction: options.AllowEviction = False) -> None:
    """Follow the configured channels and keep their tallies, until told to stop."""
    from worker.service.commands import run_worker
    from worker.settings.checks import FOLLOW, load, warn_of_unknown
    from worker.telemetry.logs import configure

    settings = load(FOLLOW)
    configure(settings.log_format, settings.log_level)
    warn_of_unknown(settings)
    raise typer.Exit(finish(run_worker(settings, allow_eviction=allow_eviction)))


def _connecting_settings() -> "Settings":
    """Return what PubNub and Redis need. On a terminal, beside progress, only errors are logged."""
    from worker.settings.checks import CONNECTS, load
    from worker.telemetry.logs import configure

    settings = load(CONNECTS)
    configure(settings.log_format, settings.log_level, is_quiet=sys.stderr.isatty())
    return settings


@app.command()
def backfill(
    channels: options.Channels = None,
    since: options.Since = None,
    until: options.Until = None,
    as_json: options.AsJson = False,
    allow_eviction: options.AllowEviction = False,
) -> None:
    """Replay what PubNub's history lists into the tallies.

    After an interrupt, the next run goes on where this one was.
    """
    from worker.cli.progress import finish_with_progress
    from worker.service.commands import run_backfill

    wanted = range_between(since, until)
    settings = _connecting_settings()
    counts = finish_with_progress(
        lambda watcher: run_backfill(
            settings, channels or [], wanted, watcher, allow_eviction=allow_eviction
        )
    )
    print_result(as_json, lambda: reports.backfill_json(counts), reports.backfill_lines(counts))


@app.command()
def reconcile(
    channels: options.Channels = None,
    since: options.Since = None,
    until: options.Until = None,
    full: options.Full = False,
    dry_run: options.DryRun = False,
    force: options.Force = False,
    as_json: options.AsJson = False,
    allow_eviction: options.AllowEviction = False,
) -> None:
    """Make tallies equal to PubNub's list.

    Add what is missing, prune and restore what two passes over the list prove.
    """
    from worker.cli.progress import finish_with_progress
    from worker.reconciliation.reconcile import ReconcileOptions
    from worker.service.commands import run_reconcile

    if full and (since or until):
        raise ConfigurationError("--full is everything; give it without --since and --until.")
    wanted = range_between(since, until)
    settings = _connecting_settings()
    choices = ReconcileOptions(force=force, dry_run=dry_run)
    results = finish_with_progress(
        lambda watcher: run_reconcile(
            settings, channels or [], wanted, choices, watcher, allow_eviction=allow_eviction
        )
    )
    print_result(
        as_json,
        lambda: reports.reconcile_json(results, dry_run=dry_run),
        reports.reconcile_lines(results, dry_run=dry_run),
    )
    raise typer.Exit(reports.reconcile_exit_code(results))


@app.command()
def verify(
    channels: options.Channels = None,
    sample: options.SampleSize = 1,
    as_json: options.AsJson = False,
    metrics_file: options.MetricsFile = None,
) -> None:
    """Compare tallies with PubNub's list, and with themselves; write nothing.

    Exit code 5 if they differ.
    """
    from worker.cli.progress import finish_with_progress
    from worker.service.commands import run_verify
    from worker.telemetry.metrics import write_verified

    settings = _connecting_settings()
    report = finish_with_progress(
        lambda watcher: run_verify(settings, channels or [], sample, watcher)
    )
    if metrics_file:
        write_verified(metrics_file, is_everything=report.is_whole and not channels)
    print_result(as_json, lambda: reports.verify_json(report), reports.verify_lines(report))
    raise typer.Exit(report.exit_code)


@app.command()
def show(channel: str, message_timetoken: str, as_json: options.AsJson = False) -> None:
    """Print the tallies of one message."""
    from worker.reading.show import read_tallies, tally_lines

    check_message_timetoken(message_timetoken)
    url, namespace = _redis_to_read()
    counts = finish(read_tallies(url, namespace, channel, message_timetoken))
    message = {"channel": channel, "message_timetoken": message_timetoken}
    print_result(as_json, lambda: {**message, "counts": counts}, tally_lines(counts))


@app.command()
def explain(channel: str, message_timetoken: str, as_json: options.AsJson = False) -> None:
    """Print each change of one message that the journal remembers, with its time and origin."""
    from worker.reading.explain import explain_message, explanation_json, explanation_lines

    check_message_timetoken(message_timetoken)
    url, namespace = _redis_to_read()
    explanation = finish(explain_message(url, namespace, channel, message_timetoken))
    message = {"channel": channel, "message_timetoken": message_timetoken}
    print_result(
        as_json,
        lambda: {**message, **explanation_json(explanation)},
        explanation_lines(explanation),
    )


def _redis_to_read() -> tuple[str | None, str]:
    """Return the URL of Redis and the namespace. Without a URL a Valkey is started."""
    from worker.settings.checks import REDIS_ONLY, load

    settings = load(REDIS_ONLY)
    if not settings.redis_url:
        from worker.telemetry.logs import configure  # that Valkey logs its errors

        configure(settings.log_format, settings.log_level, is_quiet=True)
    return settings.redis_url, settings.namespace


@app.command()
def doctor(as_json: options.AsJson = False, allow_eviction: options.AllowEviction = False) -> None:
    """Check configuration, PubNub and Redis; say what to do where something is wrong."""
    from worker.service.commands import run_doctor
    from worker.settings.checks import FOLLOW, load
    from worker.telemetry.logs import configure

    settings = load(FOLLOW, checks_later=True)
    configure(settings.log_format, settings.log_level, is_quiet=True)
    findings = []

    async def examine() -> None:
        async for finding in run_doctor(settings, allow_eviction=allow_eviction):
            findings.append(finding)
            if not as_json:
                typer.echo(reports.finding_line(finding))

    finish(examine())
    failures = [finding.exit_code for finding in findings if finding.exit_code]
    if as_json:
        print_json({"ok": not failures, "checks": list(map(reports.finding_json, findings))})
    raise typer.Exit(failures[0] if failures else ExitCode.DONE)


@app.command()
def config(as_json: options.AsJson = False) -> None:
    """Print which settings are in force, and where each comes from; secrets are masked."""
    from worker.settings import masked
    from worker.settings.checks import SHOW, load

    settings = load(SHOW)
    print_result(as_json, lambda: masked.as_json(settings), masked.as_lines(settings))


@app.command()
def healthcheck(live: options.LivenessOnly = False) -> None:
    """Ask the worker at TALLY_HTTP whether it is ready. Exit code 1 if not.

    For containers, which have no curl.
    """
    from worker.settings import read
    from worker.telemetry.health import request_health
    from worker.telemetry.text import escape

    settings, problems = read(["TALLY_HTTP"])
    if problems:
        raise settings.report.refusal(problems)
    address = settings.http
    if address is None or not address.port:
        raise ConfigurationError(
            "TALLY_HTTP names no port to ask at: set the one the worker listens at."
        )
    path = "/livez" if live else "/readyz"
    failures = request_health(address.reachable_host, address.port, path)
    typer.echo("\n".join(map(escape, failures or ["ok"])))
    raise typer.Exit(ExitCode.FAILED if failures else ExitCode.DONE)


@app.command()
def emulator(
    port: options.Port = 8090,
    host: options.Host = "127.0.0.1",
    seed: options.FaultSeed = 0,
    fault: options.FaultRates = None,
) -> None:
    """Run a PubNub for one laptop, with seeded faults, until told to stop."""
    from worker.cli.emulator import fault_rates, serve
    from worker.emulator import Emulator
    from worker.telemetry.logs import configure

    configure(level="error")  # the HTTP server logs each request that failed
    rates = fault_rates(fault or [])
    finish(serve(Emulator(host=host, port=port, seed=seed, faults=rates)))


@app.command()
def demo(
    seconds: options.DemoSeconds = 20,
    rate: options.DemoRate = 100,
    seed: options.DemoSeed = 0,
    fault: options.FaultRates = None,
    as_json: options.AsJson = False,
) -> None:
    """Show the worker at work, and compare its counts with the truth at the end.

    Beside it run an emulator, a Valkey and a crowd.
    """
    from worker.cli.emulator import fault_rates
    from worker.demo import Plan, run_demo
    from worker.telemetry.logs import configure

    configure(level="error")  # whatever the settings in ``.env`` say: the demo has its own
    plan = Plan(seconds, rate, seed, fault_rates(fault or []))
    result = finish(run_demo(plan, quiet=as_json))
    if as_json:
        print_json(result.as_json())
    raise typer.Exit(ExitCode.DIFFERENCES if result.differences else ExitCode.DONE)
