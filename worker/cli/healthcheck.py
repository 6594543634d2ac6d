"""``tally healthcheck``. A container runs it every half minute, so it loads no worker."""

from worker.cli.output import print_lines
from worker.errors import ConfigurationError, ExitCode
from worker.settings import read, refusal
from worker.telemetry.health import request_health
from worker.telemetry.text import escape


def check_health(path: str) -> ExitCode:
    """Ask the worker at TALLY_HTTP for the page ``/livez`` or ``/readyz``; print what is wrong."""
    host, port = _address()
    failures = request_health(host, port, path)
    if failures:
        print_lines(map(escape, failures))
        return ExitCode.FAILED
    print_lines(["ok"])
    return ExitCode.DONE


def _address() -> tuple[str, int]:
    settings, problems = read(["TALLY_HTTP"])
    if problems:
        raise refusal(problems)
    address = settings.http
    if address is None or not address.port:
        raise ConfigurationError(
            "TALLY_HTTP names no port to ask at: set the one the worker listens at."
        )
    return address.reachable_host, address.port
