"""``tally show`` and ``tally explain``: what Redis says about one message."""

from collections.abc import Iterator

from worker.cli.arguments import check_message_timetoken
from worker.cli.interrupts import finish
from worker.cli.output import print_json, print_lines
from worker.domain.tally import Counts, by_count
from worker.reading.explain import explain_message, explanation_json, explanation_lines
from worker.reading.show import read_tallies
from worker.settings import Settings
from worker.settings.checks import REDIS_ONLY, load
from worker.telemetry.text import escape


def print_tallies(channel: str, message_timetoken: str, *, as_json: bool) -> None:
    """Print the tallies of one message."""
    check_message_timetoken(message_timetoken)
    settings = _load_settings()
    counts = finish(
        read_tallies(settings.redis_url, settings.namespace, channel, message_timetoken)
    )
    if as_json:
        print_json(_message_json(channel, message_timetoken) | {"counts": counts})
    else:
        print_lines(_tally_lines(counts))


def print_explanation(channel: str, message_timetoken: str, *, as_json: bool) -> None:
    """Print each change of one message that the journal remembers."""
    check_message_timetoken(message_timetoken)
    settings = _load_settings()
    explanation = finish(
        explain_message(settings.redis_url, settings.namespace, channel, message_timetoken)
    )
    if as_json:
        print_json(_message_json(channel, message_timetoken) | explanation_json(explanation))
    else:
        print_lines(explanation_lines(explanation))


def _load_settings() -> Settings:
    """Return the settings.

    Without REDIS_URL a Valkey is started, and its errors are logged.
    """
    settings = load(REDIS_ONLY)
    if not settings.redis_url:
        from worker.cli.settings import configure_log  # noqa: PLC0415 - reading needs no log

        configure_log(settings, is_quiet=True)
    return settings


def _message_json(channel: str, message_timetoken: str) -> dict[str, object]:
    return {"channel": channel, "message_timetoken": message_timetoken}


def _tally_lines(counts: Counts) -> Iterator[str]:
    if not counts:
        yield "No reactions."
    for type, value, count in by_count(counts):
        yield f"{escape(type)}  {escape(value)}  {count}"
