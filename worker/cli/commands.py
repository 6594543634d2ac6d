"""The command line: arguments in, sentences and exit codes out. What a command needs is imported when it runs."""

import gc
import io
import json
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, NoReturn, TypeVar

import typer

from worker import __version__
from worker.errors import ConfigurationError, ExitCode, TallyError

if TYPE_CHECKING:
    import asyncio

Result = TypeVar("Result")

app = typer.Typer(
    name="tally",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

AllowEviction = Annotated[
    bool, typer.Option("--allow-eviction", help="Accept a Redis that may throw counts away.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
Channels = Annotated[
    list[str] | None,
    typer.Argument(metavar="[CHANNEL]…", help="Default: all configured and all ever seen."),
]
Since = Annotated[
    str | None, typer.Option(help="From here: a timetoken, a date, or an age such as 7d.")
]
Until = Annotated[str | None, typer.Option(help="To here, exclusive; written likewise.")]
FaultRates = Annotated[
    list[str] | None,
    typer.Option("--fault", metavar="NAME=RATE", help="A fault and its rate, 0 to 1; repeatable."),
]

_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def main() -> NoReturn:
    """Run a command; say what went wrong in a sentence, and end with its exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(
            stream, io.TextIOWrapper
        ):  # what its encoding cannot carry (an emoji, mostly) becomes an escape
            stream.reconfigure(errors="backslashreplace")
    try:
        app(standalone_mode=True)
    except TallyError as error:
        from worker.telemetry.text import escape  # noqa: PLC0415

        typer.echo("tally: " + "\n".join(map(escape, str(error).splitlines())), err=True)
        sys.exit(error.exit_code)
    except BrokenPipeError:
        # Whoever read our output has gone; Python would complain about it again while it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(ExitCode.FAILED)
    except (
        Exception
    ):  # a slip of ours: an entry like any other, for what an error quotes is nobody's to read
        from worker.telemetry.logs import log_crash  # noqa: PLC0415

        log_crash()
        sys.exit(ExitCode.FAILED)
    sys.exit(ExitCode.DONE)


def _print_version(is_wanted: bool) -> None:
    if is_wanted:
        typer.echo(f"tally {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", is_eager=True, callback=_print_version, help="Print the version, and end."
        ),
    ] = False,
) -> None:
    """Exact reaction counts for PubNub message actions, kept in Redis. Settings come from the environment."""


@app.command()
def run(allow_eviction: AllowEviction = False) -> None:
    """Follow the configured channels and keep their tallies, until told to stop."""
    with _stopped_at_once():
        from worker.service import app as building  # noqa: PLC0415
        from worker.settings.checks import FOLLOW, warn_of_unknown  # noqa: PLC0415

        settings = _settings(FOLLOW)
        warn_of_unknown(settings)
        ended = finish(building.run(settings, allow_eviction=allow_eviction))
    raise typer.Exit(ended)


@app.command()
def backfill(
    channels: Channels = None,
    since: Since = None,
    until: Until = None,
    as_json: AsJson = False,
    allow_eviction: AllowEviction = False,
) -> None:
    """Replay what PubNub's history lists into the tallies. Interrupted, it goes on where it was."""
    from worker.domain.position import Range  # noqa: PLC0415
    from worker.service import app as building  # noqa: PLC0415

    settings = _connecting_settings()
    wanted = Range(*stretch(since, until))
    counts = _finish_in_sight(
        lambda watch: building.backfill(
            settings, channels or [], wanted, watch, allow_eviction=allow_eviction
        )
    )
    if as_json:
        _print_json({"channels": counts, "actions": sum(counts.values())})
    else:
        typer.echo(f"{sum(counts.values())} actions read in {len(counts)} channels.")


@app.command()
def reconcile(
    channels: Channels = None,
    since: Since = None,
    until: Until = None,
    full: Annotated[
        bool, typer.Option("--full", help="Everything PubNub keeps; so it is without --since.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Write nothing; say what would be done.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Prune however many it is.")] = False,
    as_json: AsJson = False,
    allow_eviction: AllowEviction = False,
) -> None:
    """Make tallies equal to PubNub's list: add what is missing, prune and restore what two looks prove."""
    from worker.cli import reports as telling  # noqa: PLC0415
    from worker.domain.position import Range  # noqa: PLC0415
    from worker.reconciliation.reconcile import ReconcileOptions  # noqa: PLC0415
    from worker.service import app as building  # noqa: PLC0415

    if full and (since or until):
        raise ConfigurationError("--full is everything; give it without --since and --until.")
    wanted, options = Range(*stretch(since, until)), ReconcileOptions(force, dry_run)
    settings = _connecting_settings()
    reports = _finish_in_sight(
        lambda watch: building.reconcile(
            settings, channels or [], wanted, options, watch, allow_eviction=allow_eviction
        )
    )
    if as_json:
        _print_json(telling.reconciled_json(reports, dry_run=dry_run))
    else:
        typer.echo("\n".join(telling.reconciled_lines(reports, dry_run=dry_run)))
    raise typer.Exit(telling.reconciled_code(reports))


@app.command()
def verify(
    channels: Channels = None,
    sample: Annotated[
        float,
        typer.Option(
            min=0, max=1, help="Which part of each channel's past to look at, from 0 to 1."
        ),
    ] = 1,
    as_json: AsJson = False,
    metrics_file: Annotated[
        Path | None,
        typer.Option(help="Write what was found there, for node_exporter's textfile collector."),
    ] = None,
) -> None:
    """Compare tallies with PubNub's list, and with themselves; write nothing. Exit code 5 if they differ."""
    from worker.cli import reports as telling  # noqa: PLC0415
    from worker.service import app as building  # noqa: PLC0415

    settings = _connecting_settings()
    found = _finish_in_sight(lambda watch: building.verify(settings, channels or [], sample, watch))
    if metrics_file:
        _write_metrics(metrics_file, is_everything=found.is_whole and not channels)
    if as_json:
        _print_json(telling.verified_json(found))
    else:
        typer.echo("\n".join(telling.verified_lines(found)))
    raise typer.Exit(found.exit_code)


@app.command()
def show(channel: str, message_timetoken: str, as_json: AsJson = False) -> None:
    """Print the tallies of one message."""
    from worker.reading import show as showing  # noqa: PLC0415
    from worker.telemetry.text import escape  # noqa: PLC0415

    _check_message_timetoken(message_timetoken)
    settings = _reading_settings()
    counts = finish(
        showing.show(settings.redis_url, settings.namespace, channel, message_timetoken)
    )
    if as_json:
        _print_json({"channel": channel, "message_timetoken": message_timetoken, "counts": counts})
        return
    lines = [
        f"{escape(type)}  {escape(value)}  {count}"
        for type, values in sorted(counts.items())
        for value, count in sorted(values.items(), key=lambda pair: (-pair[1], pair[0]))
    ]
    typer.echo("\n".join(lines) or "No reactions.")


@app.command()
def explain(channel: str, message_timetoken: str, as_json: AsJson = False) -> None:
    """Tell how the tallies of one message came to be: each change the journal remembers, its time and its origin."""
    from worker.reading import explain as explaining  # noqa: PLC0415

    _check_message_timetoken(message_timetoken)
    settings = _reading_settings()
    explanation = finish(
        explaining.explain(settings.redis_url, settings.namespace, channel, message_timetoken)
    )
    if as_json:
        _print_json(
            {
                "channel": channel,
                "message_timetoken": message_timetoken,
                **explaining.as_json(explanation),
            }
        )
    else:
        typer.echo("\n".join(explaining.as_lines(explanation)))


@app.command()
def doctor(as_json: AsJson = False, allow_eviction: AllowEviction = False) -> None:
    """Look whether configuration, PubNub and Redis are fit; say what to do where they are not."""
    from worker.service import app as building  # noqa: PLC0415
    from worker.service.doctor import Finding  # noqa: PLC0415
    from worker.settings.checks import FOLLOW, load_usable  # noqa: PLC0415
    from worker.telemetry.text import escape  # noqa: PLC0415

    settings = _logging(load_usable(FOLLOW), quiet=True)

    async def examine() -> list[Finding]:
        findings = []
        async for finding in building.doctor(settings, allow_eviction=allow_eviction):
            findings.append(finding)
            if not as_json:
                good = finding.exit_code is ExitCode.DONE
                typer.echo(
                    f"{'ok  ' if good else 'BAD '} {finding.subject}: {escape(finding.text)}"
                )
        return findings

    findings = finish(examine())
    worst = next((finding.exit_code for finding in findings if finding.exit_code), ExitCode.DONE)
    if as_json:
        checks = [{"subject": f.subject, "ok": not f.exit_code, "text": f.text} for f in findings]
        _print_json({"ok": not worst, "checks": checks})
    raise typer.Exit(worst)


@app.command()
def config(as_json: AsJson = False) -> None:
    """Print which settings are in force, and where each comes from; secrets are masked."""
    from worker.settings import masked  # noqa: PLC0415
    from worker.settings.checks import SHOW, load  # noqa: PLC0415

    settings = load(SHOW)
    if as_json:
        _print_json(masked.as_json(settings))
        return

    typer.echo("\n".join(masked.as_lines(settings)))


@app.command()
def healthcheck(
    live: Annotated[
        bool,
        typer.Option(
            "--live", help="Only whether its loops turn (/livez), not whether it is ready."
        ),
    ] = False,
) -> None:
    """Ask the worker at TALLY_HTTP whether it is ready; for containers, which have no curl. Exit code 1 if not."""
    from worker.settings import read, refusal  # noqa: PLC0415
    from worker.telemetry.health import request_health  # noqa: PLC0415
    from worker.telemetry.text import escape  # noqa: PLC0415

    settings, is_wrong = read(["TALLY_HTTP"])
    if is_wrong:
        raise refusal(is_wrong)
    address = settings.http
    if address is None or not address.port:
        raise ConfigurationError(
            "TALLY_HTTP names no port to ask at: set the one the worker listens at."
        )
    wrong = request_health(address.reachable_host, address.port, "/livez" if live else "/readyz")
    typer.echo("\n".join(map(escape, wrong)) or "ok")
    raise typer.Exit(ExitCode.FAILED if wrong else ExitCode.DONE)


@app.command()
def emulator(
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8090,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    seed: Annotated[int, typer.Option(help="Makes the faults repeatable.")] = 0,
    fault: FaultRates = None,
) -> None:
    """Run a PubNub for one laptop, with seeded faults, until told to stop."""
    import asyncio  # noqa: PLC0415

    from worker.emulator import Emulator  # noqa: PLC0415
    from worker.telemetry.logs import configure  # noqa: PLC0415

    configure(level="error")  # what its HTTP server says of a request that failed
    rates = fault_rates(fault or [])

    async def serve() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (2, 15):
            loop.add_signal_handler(number, stop.set)
        try:
            async with Emulator(host=host, port=port, seed=seed, faults=rates) as running:
                typer.echo(f"PUBNUB_ORIGIN={running.origin} PUBNUB_TLS=false")
                sys.stdout.flush()
                await stop.wait()
        except OSError as error:
            raise ConfigurationError(f"{error}. Choose another with --port.") from None

    finish(serve())


@app.command()
def demo(
    seconds: Annotated[
        float, typer.Option(min=1, max=3600, help="How long the crowd reacts.")
    ] = 20,
    rate: Annotated[
        float, typer.Option(min=0.1, max=10_000, help="Reactions a second, all users together.")
    ] = 100,
    seed: Annotated[int, typer.Option(help="Makes crowd and faults repeatable.")] = 0,
    fault: FaultRates = None,
    as_json: AsJson = False,
) -> None:
    """Show it at work: emulator, Valkey, the worker and a crowd, compared with the truth at the end."""
    from worker.demo import Plan, run_demo  # noqa: PLC0415
    from worker.telemetry.logs import configure  # noqa: PLC0415

    configure(
        level="error"
    )  # not by the settings: the demo has its own, whatever this folder's .env says
    result = finish(run_demo(Plan(seconds, rate, seed, fault_rates(fault or [])), quiet=as_json))
    if as_json:
        _print_json(result.as_json())
    raise typer.Exit(ExitCode.DIFFERENCES if result.differences else ExitCode.DONE)


def fault_rates(faults: list[str]) -> dict[str, float]:
    """Return name → rate of ``NAME=RATE`` texts.

    Raises:
        ConfigurationError: a name or a rate is wrong; the sentence lists the names.
    """
    from worker.emulator import FAULT_NAMES  # noqa: PLC0415

    rates = {}
    for text in faults:
        name, _, rate = text.partition("=")
        if name not in FAULT_NAMES:
            raise ConfigurationError(
                f"--fault {text!r}: no such fault. There are: {', '.join(sorted(FAULT_NAMES))}."
            )
        if not re.fullmatch(r"0?\.[0-9]+|[01](\.0*)?", rate):
            raise ConfigurationError(
                f"--fault {text!r}: the rate is a number from 0 to 1, as in {name}=0.2."
            )
        rates[name] = float(rate)
    return rates


def moment(text: str | None, option: str) -> str | None:
    """Return the timetoken of a moment given as a timetoken, an ISO date (UTC if it says no zone) or an age.

    Raises:
        ConfigurationError: it is none of these.
    """
    from worker.domain.position import from_seconds  # noqa: PLC0415

    if text is None or re.fullmatch(r"[1-9][0-9]{16}", text, re.ASCII):
        return text
    if age := re.fullmatch(r"([0-9]{1,9})([smhd])", text, re.ASCII):
        return from_seconds(time.time() - int(age[1]) * _UNITS[age[2]])
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigurationError(
            f"{option} is {text!r}; give a timetoken of 17 digits, a date such as 2026-01-31T12:00, or an age like 7d."
        ) from None
    return from_seconds((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp())


def stretch(since: str | None, until: str | None) -> tuple[str | None, str | None]:
    """Return the timetokens between which to replay; None is an open end.

    Raises:
        ConfigurationError: one of them is no moment, or there is nothing between them.
    """
    from worker.domain.position import is_after  # noqa: PLC0415

    begin, end = moment(since, "--since"), moment(until, "--until")
    if begin and end and not is_after(end, begin):
        raise ConfigurationError(
            f"--since {since} is not before --until {until}: there is nothing between them."
        )
    return begin, end


def _write_metrics(path: Path, *, is_everything: bool) -> None:
    from worker.telemetry.metrics import verified, write_verified  # noqa: PLC0415

    if is_everything:
        verified.set_to_current_time()
    try:
        write_verified(path)
    except OSError as error:
        raise ConfigurationError(
            f"--metrics-file {path}: it cannot be written ({error.strerror})."
        ) from None


def _check_message_timetoken(text: str) -> None:
    if not re.fullmatch(r"[0-9]{1,20}", text, re.ASCII):
        raise ConfigurationError(f"MESSAGE_TIMETOKEN is {text!r}; it has only digits.")


def _settings(purpose: Any, *, quiet: bool = False) -> Any:
    """Return the settings a command needs, and log as they say."""
    from worker.settings.checks import load  # noqa: PLC0415

    return _logging(load(purpose), quiet=quiet)


def _logging(settings: Any, *, quiet: bool) -> Any:
    """Log as the settings say; a command that talks on the terminal logs only what is wrong."""
    from worker.telemetry.logs import configure  # noqa: PLC0415

    configure(
        settings.log_format,
        "error" if quiet and settings.log_level != "debug" else settings.log_level,
    )
    return settings


def _connecting_settings() -> Any:
    """Return the settings of a command that speaks to PubNub."""
    from worker.settings.checks import CONNECTS  # noqa: PLC0415

    return _settings(CONNECTS, quiet=sys.stderr.isatty())


def _reading_settings() -> Any:
    """Return the settings of a command that only reads: it logs nothing, unless it starts a Valkey."""
    from worker.settings.checks import REDIS_ONLY, load  # noqa: PLC0415

    settings = load(REDIS_ONLY)
    return settings if settings.redis_url else _logging(settings, quiet=True)


@contextmanager
def _stopped_at_once() -> Iterator[None]:
    """End with 0 on a stop that comes before a worker listens to signals itself: nothing was read yet.

    A container's first process would be deaf to it. A SIGHUP is no reason to end: the list has not been read yet.
    """
    if not _is_main_thread():
        yield
        return
    heard = [
        number
        for number in (signal.SIGTERM, signal.SIGINT)
        if signal.getsignal(number) is not signal.SIG_IGN
    ]
    before = {number: signal.signal(number, lambda *_: os._exit(ExitCode.DONE)) for number in heard}
    if not sys.stderr.isatty():  # else it means that the terminal has gone
        before[signal.SIGHUP] = signal.signal(signal.SIGHUP, lambda *_: None)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _is_main_thread() -> bool:
    """Tell whether this is the one that may listen to signals."""
    return threading.current_thread() is threading.main_thread()


class _Interrupts:
    """Ctrl-C while a command works: the first cancels its work, the second its cleaning up, the third ends the process.

    It is not forgotten where a cancellation is swallowed; asyncio.run would take what came of the work for a result.
    """

    def __init__(self) -> None:
        self._count = 0
        self._task: asyncio.Task[Any] | None = None
        self._before = signal.getsignal(signal.SIGINT)
        self._is_heard = _is_main_thread() and self._before is not signal.SIG_IGN

    @property
    def have_come(self) -> bool:
        """Whether there was one."""
        return self._count > 0

    def cancel(self, task: "asyncio.Task[Any]") -> None:
        """Cancel this task from now on."""
        self._task = task
        if self._is_heard:
            signal.signal(signal.SIGINT, self._come)

    def end(self) -> None:
        """Leave them to whoever heard them before."""
        if self._is_heard:
            signal.signal(signal.SIGINT, self._before)

    def _come(self, number: int, _frame: object) -> None:
        self._count += 1
        if (
            self._task is None or self._task.done() or self._count > 2
        ):  # all that was open is closed, or never will be
            os._exit(128 + number)
        if self._count > 1:
            raise KeyboardInterrupt
        self._task.cancel()
        self._task.get_loop().call_soon_threadsafe(lambda: None)  # wake it


def finish(work: Coroutine[Any, Any, Result]) -> Result:
    """Run a command's work, and return what comes of it; Ctrl-C ends the command with 130, whatever came of its work.

    The task has no result of its own. Up to Python 3.12 asyncio.run ends with ``signal.signal``, which builds the repr
    of the task and of its result. That took 40 seconds for a message with 25,000 reactions.
    """
    import asyncio  # noqa: PLC0415 - a quarter of the time --help takes

    if not gc.isenabled():  # so the process began
        gc.freeze()
        gc.enable()
    results: list[Result] = []
    interrupts = _Interrupts()

    async def keep_result() -> None:
        if task := asyncio.current_task():
            interrupts.cancel(task)
        results.append(await work)

    try:
        asyncio.run(keep_result())
    except BaseException:  # whatever what was interrupted ends with
        if not interrupts.have_come:
            raise
    finally:
        interrupts.end()
    if interrupts.have_come:
        raise typer.Exit(128 + signal.SIGINT)
    return results[0]


def _finish_in_sight(work: Callable[[Any], Coroutine[Any, Any, Result]]) -> Result:
    """Finish work that is shown how far it is where somebody looks on: on a terminal."""
    if not sys.stderr.isatty():
        return finish(work(None))
    from worker.cli.progress import shown_progress  # noqa: PLC0415

    async def in_sight() -> Result:
        with shown_progress() as watch:
            return await work(watch)

    return finish(in_sight())


def _print_json(document: object) -> None:
    typer.echo(json.dumps(document, ensure_ascii=True))
