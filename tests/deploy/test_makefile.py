"""The Makefile: what a newcomer types first."""

from pathlib import Path
from typing import Final

from tests.deploy.needed import needs, run

MAKEFILE: Final = Path(__file__).parents[2] / "Makefile"


@needs("make", "that make help lists every target")
def test_help_lists_every_target() -> None:
    """Each has a sentence."""
    lines = MAKEFILE.read_text("utf-8").splitlines()
    (phony,) = [line for line in lines if line.startswith(".PHONY: ")]

    shown = run("make", "--no-print-directory", "-f", MAKEFILE, "help").stdout

    listed = [line.split(maxsplit=1) for line in shown.splitlines()]
    assert {target for target, _ in listed} == set(phony.split()[1:])
