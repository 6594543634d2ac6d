"""``tally config``: the settings in force."""

from worker.cli.output import print_json, print_lines
from worker.settings import masked
from worker.settings.checks import SHOW, load


def print_settings(*, as_json: bool) -> None:
    """Print each setting, with its value and its source. Secrets are masked."""
    settings = load(SHOW)
    if as_json:
        print_json(masked.as_json(settings))
    else:
        print_lines(masked.as_lines(settings))
