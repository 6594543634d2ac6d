"""Every command with its options. A command loads the module that does its work when it runs.

So ``tally --help`` and ``tally run --help`` load neither PubNub nor Redis, and are quick.

To add a command: declare it here, with its options in ``options.py``.
Write what it does in the module of its family, such as ``read.py``.
"""

from typing import Annotated

import typer

from worker import __version__
from worker.cli.arguments import range_between, refuse_bounds_beside_full
from worker.cli.early_stop import stopping_at_once
from worker.cli.options import (
    AllowEviction,
    AsJson,
    Channels,
    DemoRate,
    DemoSeconds,
    DemoSeed,
    DryRun,
    FaultRates,
    FaultSeed,
    Force,
    Full,
    Host,
    LivenessOnly,
    MetricsFile,
    Port,
    SampleSize,
    Since,
    Until,
)

app = typer.Typer(
    name="tally", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False
)


def _print_version(is_wanted: bool) -> None:
    if is_wanted:
        typer.echo(f"tally {__version__}")
        raise typer.Exit


Version = Annotated[
    bool,
    typer.Option(
        "--version", is_eager=True, callback=_print_version, help="Print the version, and end."
    ),
]


@app.callback()
def options(version: Version = False) -> None:
    """Exact reaction counts for PubNub message actions, kept in Redis.

    Settings come from the environment.
    """


@app.command()
def run(allow_eviction: AllowEviction = False) -> None:
    """Follow the configured channels and keep their tallies, until told to stop."""
    with stopping_at_once():
        from worker.cli.service import follow_channels

        code = follow_channels(allow_eviction=allow_eviction)
    raise typer.Exit(code)


@app.command()
def backfill(
    channels: Channels = None,
    since: Since = None,
    until: Until = None,
    as_json: AsJson = False,
    allow_eviction: AllowEviction = False,
) -> None:
    """Replay what PubNub's history lists into the tallies.

    After an interrupt, the next run goes on where this one was.
    """
    from worker.cli.repair import replay_history

    replay_history(
        channels or [], range_between(since, until), as_json=as_json, allow_eviction=allow_eviction
    )


@app.command()
def reconcile(
    channels: Channels = None,
    since: Since = None,
    until: Until = None,
    full: Full = False,
    dry_run: DryRun = False,
    force: Force = False,
    as_json: AsJson = False,
    allow_eviction: AllowEviction = False,
) -> None:
    """Make tallies equal to PubNub's list.

    Add what is missing, prune and restore what two passes over the list prove.
    """
    from worker.cli.repair import reconcile_tallies

    if full:
        refuse_bounds_beside_full(since, until)
    code = reconcile_tallies(
        channels or [],
        range_between(since, until),
        force=force,
        dry_run=dry_run,
        as_json=as_json,
        allow_eviction=allow_eviction,
    )
    raise typer.Exit(code)


@app.command()
def verify(
    channels: Channels = None,
    sample: SampleSize = 1,
    as_json: AsJson = False,
    metrics_file: MetricsFile = None,
) -> None:
    """Compare tallies with PubNub's list, and with themselves; write nothing.

    Exit code 5 if they differ.
    """
    from worker.cli.repair import verify_tallies

    code = verify_tallies(channels or [], sample, as_json=as_json, metrics_file=metrics_file)
    raise typer.Exit(code)


@app.command()
def show(channel: str, message_timetoken: str, as_json: AsJson = False) -> None:
    """Print the tallies of one message."""
    from worker.cli.read import print_tallies

    print_tallies(channel, message_timetoken, as_json=as_json)


@app.command()
def explain(channel: str, message_timetoken: str, as_json: AsJson = False) -> None:
    """Print each change of one message that the journal remembers, with its time and origin."""
    from worker.cli.read import print_explanation

    print_explanation(channel, message_timetoken, as_json=as_json)


@app.command()
def doctor(as_json: AsJson = False, allow_eviction: AllowEviction = False) -> None:
    """Check configuration, PubNub and Redis; say what to do where something is wrong."""
    from worker.cli.service import diagnose

    raise typer.Exit(diagnose(as_json=as_json, allow_eviction=allow_eviction))


@app.command()
def config(as_json: AsJson = False) -> None:
    """Print which settings are in force, and where each comes from; secrets are masked."""
    from worker.cli.config import print_settings

    print_settings(as_json=as_json)


@app.command()
def healthcheck(live: LivenessOnly = False) -> None:
    """Ask the worker at TALLY_HTTP whether it is ready. Exit code 1 if not.

    For containers, which have no curl.
    """
    from worker.cli.healthcheck import check_health

    raise typer.Exit(check_health("/livez" if live else "/readyz"))


@app.command()
def emulator(
    port: Port = 8090,
    host: Host = "127.0.0.1",
    seed: FaultSeed = 0,
    fault: FaultRates = None,
) -> None:
    """Run a PubNub for one laptop, with seeded faults, until told to stop."""
    from worker.cli.emulator import serve_emulator

    serve_emulator(host, port, seed, fault or [])


@app.command()
def demo(
    seconds: DemoSeconds = 20,
    rate: DemoRate = 100,
    seed: DemoSeed = 0,
    fault: FaultRates = None,
    as_json: AsJson = False,
) -> None:
    """Show the worker at work, and compare its counts with the truth at the end.

    Beside it run an emulator, a Valkey and a crowd.
    """
    from worker.cli.demo import show_demo

    raise typer.Exit(show_demo(seconds, rate, seed, fault or [], as_json=as_json))
