"""``make model``: checks everything, or one configuration, whose counterexample it tells."""

import argparse
import sys

from tests.model.checker import Configuration, Verdict, check, missing_programs
from tests.model.configurations import LARGE, PROTECTIONS, SLOW_PROTECTIONS, SMALL

SECONDS = 900.0


def main() -> int:
    """Return 1 if something is not as it should be."""
    parser = argparse.ArgumentParser(prog="python -m tests.model", description=__doc__)
    parser.add_argument("only", nargs="*", help="the model, and what to define")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="for each search")
    given = parser.parse_args()
    if missing := missing_programs():
        sys.exit(f"{' and '.join(missing)} must be installed: apt-get install spin gcc libc6-dev")
    if given.only:
        model, *defines = given.only
        configuration = Configuration(model, " ".join(defines))
        return not _is_right(configuration, check(configuration, seconds=given.seconds))
    return not _are_right(given.seconds)


def _are_right(seconds: float) -> bool:
    """Check all configurations, then take out each protection."""
    are_right = True
    for configuration in (*SMALL, *LARGE):
        are_right &= _is_right(configuration, check(configuration, seconds=seconds))
    for protection, configuration in {**PROTECTIONS, **SLOW_PROTECTIONS}.items():
        changed = configuration.without(protection)
        verdict = check(changed, seconds=seconds)
        say(f"{changed}: {verdict.violation or 'NOT FOUND'}")
        are_right &= bool(verdict.violation)
    return are_right


def _is_right(configuration: Configuration, verdict: Verdict) -> bool:
    say(f"{configuration}: {verdict}")
    return verdict.is_exhausted and not verdict.violation


def say(text: str) -> None:
    """Print at once: this takes minutes."""
    print(text, flush=True)  # noqa: T201 - a program's output


if __name__ == "__main__":
    sys.exit(main())
