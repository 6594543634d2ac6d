"""The commands: their options, their work, and what they print.

A command loads what it needs when it runs.
So ``tally --help`` loads neither PubNub nor Redis, and is quick.
"""

import sys
from functools import cache, partial
from typing import TYPE_CHECKING

import typer

from worker.cli import options, reports
from worker.cli.arguments import range_between
from worker.cli.confirm import confirm
from worker.cli.interrupts import finish
from worker.cli.reading_commands import channels, explain, show, tail, top
from worker.cli.reports import print_json, print_result
from worker.cli.user_commands import users
from worker.errors import ConfigurationError, ExitCode
from worker.telemetry.text import escape

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from worker.domain.shards import Shard
    from worker.service.doctor import Finding
    from worker.settings import Settings

app = typer.Typer(
    name="tally",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(users, name="users")


@app.callback()
def tally(version: options.Version = False) -> None:
    """Exact reaction counts for PubNub message actions, kept in Redis.

    Settings come from the environment, or from the file .env here (deploy/reference.md).

    Begin with tally doctor. What its sentences mean: deploy/situations.md.
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
    work = run_worker(settings, allow_eviction=allow_eviction)
    code = finish(work)
    raise typer.Exit(code)


def _connecting_settings() -> "Settings":
    """Return the settings for PubNub and Redis.

    On a terminal, beside progress, only errors are logged.
    """
    from worker.settings.checks import CONNECTS, load
    from worker.telemetry.logs import configure

    settings = load(CONNECTS)
    is_quiet = sys.stderr.isatty()
    configure(settings.log_format, settings.log_level, is_quiet=is_quiet)
    return settings


def _refuse_both(channels: list[str], shard: "Shard | None") -> None:
    """Make sure that a command gets channels, or a shard.

    Raises:
        ConfigurationError: it gets both.
    """
    if channels and shard:
        raise ConfigurationError("--shard chooses the channels itself; give it without channels.")


@app.command()
def backfill(
    channels: options.Channels,
    since: options.Since = None,
    until: options.Until = None,
    shard: options.OneShard = None,
    as_json: options.AsJson = False,
    allow_eviction: options.AllowEviction = False,
) -> None:
    """Replay what PubNub's history lists into the tallies.

    After an interrupt, the next run goes on where this one was.
    """
    from worker.cli.progress import finish_with_progress
    from worker.service.commands import run_backfill

    _refuse_both(channels, shard)
    wanted = range_between(since, until)
    settings = _connecting_settings()
    work = partial(
        run_backfill,
        settings,
        channels,
        wanted,
        shard=shard,
        allow_eviction=allow_eviction,
    )
    report = finish_with_progress(work)
    document = partial(reports.backfill_json, report.counts)
    is_part = any((since, until))
    lines = reports.backfill_lines(report, channels, is_part=is_part)
    print_result(as_json, document, lines)


@app.command()
def reconcile(
    channels: options.Channels,
    since: options.Since = None,
    until: options.Until = None,
    full: options.Full = False,
    dry_run: options.DryRun = False,
    force: options.Force = False,
    shard: options.OneShard = None,
    as_json: options.AsJson = False,
    allow_eviction: options.AllowEviction = False,
) -> None:
    """Make tallies equal to PubNub's list.

    Add what is missing, prune and restore what two passes over the list prove.
    """
    from worker.cli.progress import finish_with_progress
    from worker.reconciliation.report import ReconcileOptions
    from worker.service.commands import run_reconcile

    if full and (since or until):
        raise ConfigurationError("--full is everything; give it without --since and --until.")
    _refuse_both(channels, shard)
    wanted = range_between(since, until)
    settings = _connecting_settings()
    choices = ReconcileOptions(force=force, dry_run=dry_run)
    work = partial(
        run_reconcile,
        settings,
        channels,
        wanted,
        choices,
        shard=shard,
        allow_eviction=allow_eviction,
    )
    results = finish_with_progress(work)
    document = partial(reports.reconcile_json, results, dry_run=dry_run)
    lines = reports.reconcile_lines(results, dry_run=dry_run)
    print_result(as_json, document, lines)
    code = reports.reconcile_exit_code(results)
    raise typer.Exit(code)


@app.command()
def verify(
    channels: options.Channels,
    sample: options.SampleSize = 1,
    shard: options.OneShard = None,
    as_json: options.AsJson = False,
    metrics_file: options.MetricsFile = None,
) -> None:
    """Compare tallies with PubNub's list, and with themselves; write nothing.

    Exit code 5 if they differ.
    """
    from worker.cli.progress import finish_with_progress
    from worker.cli.waiting import announce_second_pass
    from worker.service.commands import run_verify
    from worker.telemetry.metrics import write_verified

    _refuse_both(channels, shard)
    settings = _connecting_settings()
    announce = cache(announce_second_pass)  # once, for all channels
    work = partial(
        run_verify,
        settings,
        channels,
        sample,
        shard=shard,
        announce=announce,
    )
    report = finish_with_progress(work)
    if metrics_file:
        is_everything = report.is_whole and not (channels or shard)
        write_verified(metrics_file, is_everything=is_everything)
    document = partial(reports.verify_json, report)
    lines = reports.verify_lines(report)
    print_result(as_json, document, lines)
    raise typer.Exit(report.exit_code)


@app.command()
def forget(
    channels: options.NamedChannels,
    yes: options.Yes = False,
    as_json: options.AsJson = False,
) -> None:
    """Delete all that is kept of channels that nobody follows any more.

    The next event of such a channel makes it a new channel: its whole past is counted again.
    """
    from worker.service.commands import refuse_configured, run_forget

    settings = _connecting_settings()
    refuse_configured(settings, channels)
    if not yes:
        names = escape(", ".join(channels))
        confirm(f"Delete all tallies of {names}?", "tally forget deletes tallies")
    work = run_forget(settings, channels)
    results = finish(work)
    document = partial(reports.forget_json, results)
    lines = reports.forget_lines(results)
    print_result(as_json, document, lines)


for reading_command in (show, top, tail, channels, explain):
    app.command()(reading_command)


@app.command()
def doctor(
    as_json: options.AsJson = False,
    allow_eviction: options.AllowEviction = False,
) -> None:
    """Check configuration, PubNub and Redis; say what to do where something is wrong."""
    from worker.service.examination import run_doctor
    from worker.settings.checks import FOLLOW, load
    from worker.telemetry.logs import configure

    settings = load(FOLLOW, checks_later=True)
    configure(settings.log_format, settings.log_level, is_quiet=True)
    checks = run_doctor(settings, allow_eviction=allow_eviction)
    findings = finish(_collect(checks, is_shown=not as_json))
    if as_json:
        print_json(reports.doctor_json(findings))
    code = reports.doctor_exit_code(findings)
    raise typer.Exit(code)


async def _collect(checks: "AsyncIterator[Finding]", *, is_shown: bool) -> "list[Finding]":
    """Return the findings; show each as soon as it is there."""
    findings = []
    async for finding in checks:
        if is_shown:
            typer.echo(reports.finding_line(finding))
        findings.append(finding)
    return findings


@app.command()
def config(as_json: options.AsJson = False) -> None:
    """Print which settings are in force, and where each comes from; secrets are masked."""
    from worker.settings import masked
    from worker.settings.checks import CONFIG, load
    from worker.settings.shard import shard_part

    settings = load(CONFIG)
    part = shard_part(settings)
    document = partial(reports.config_json, masked.as_json(settings), part)
    lines = reports.config_lines(masked.as_lines(settings), part)
    print_result(as_json, document, lines)


@app.command()
def healthcheck(live: options.LivenessOnly = False) -> None:
    """Ask the worker at TALLY_HTTP whether it is ready. Exit code 1 if not.

    For containers, which have no curl.
    """
    from worker.settings import read
    from worker.telemetry.health_request import request_health

    settings, problems = read(["TALLY_HTTP"])
    if problems:
        raise settings.report.refusal(problems)

    address = settings.http
    if address is None or not address.port:
        raise ConfigurationError(
            "TALLY_HTTP names no port to ask at: set the one the worker listens at."
        )

    host = address.reachable_host
    path = "/livez" if live else "/readyz"
    failures = request_health(host, address.port, path)
    if failures:
        lines = map(escape, failures)
        typer.echo("\n".join(lines))
        raise typer.Exit(ExitCode.FAILED)

    typer.echo("ok")


@app.command()
def board(port: options.Port = 8088) -> None:
    """Show the tallies, and the trust in them, as a page on this machine.

    It reads Redis, and asks the worker at TALLY_HTTP if one answers there.
    """
    from worker.service.board import serve_board
    from worker.settings.checks import BOARD, load
    from worker.telemetry.logs import configure

    settings = load(BOARD)
    configure(settings.log_format, settings.log_level)
    finish(serve_board(settings, port, typer.echo))


@app.command()
def emulator(
    port: options.Port = 8090,
    host: options.Host = "127.0.0.1",
    seed: options.FaultSeed = 0,
    fault: options.FaultRates = None,
    access_manager: options.AccessManager = False,
) -> None:
    """Run a PubNub for one laptop, with seeded faults, until told to stop."""
    from worker.cli.emulator import PUBLISH_KEY, SECRET_KEY, fault_rates, serve
    from worker.emulator import Emulator
    from worker.telemetry.logs import configure

    configure(level="error")  # the HTTP server logs each request that failed
    rates = fault_rates(fault)
    pubnub = Emulator(host=host, port=port, seed=seed, faults=rates)
    if access_manager:
        pubnub.state.access.switch_on(PUBLISH_KEY, SECRET_KEY)
    finish(serve(pubnub))


@app.command()
def demo(
    seconds: options.DemoSeconds = 20,
    rate: options.DemoRate = 100,
    seed: options.DemoSeed = 0,
    fault: options.FaultRates = None,
    access: options.DemoAccess = "open",
    as_json: options.AsJson = False,
) -> None:
    """Show the worker at work, and compare its counts with the truth at the end.

    Beside it run an emulator, a Valkey and a crowd.
    """
    from worker.cli.emulator import fault_rates
    from worker.demo import Access, Plan, run_demo
    from worker.telemetry.logs import configure

    configure(level="error")  # the demo ignores the settings in ``.env``
    rates = fault_rates(fault)
    plan = Plan(seconds, rate, seed, rates, Access(access))
    result = finish(run_demo(plan, quiet=as_json))
    if as_json:
        print_json(result.as_json())
    if result.differences:
        raise typer.Exit(ExitCode.DIFFERENCES)
