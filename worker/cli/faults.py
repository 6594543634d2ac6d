"""The faults of the emulator, as people write them: ``--fault late=0.2``."""

import re
from collections.abc import Sequence

from worker.emulator import FAULT_NAMES
from worker.errors import ConfigurationError


def fault_rates(faults: Sequence[str]) -> dict[str, float]:
    """Return name → rate of texts such as ``late=0.2``.

    Raises:
        ConfigurationError: a name or a rate is wrong; the sentence lists the names.
    """
    return dict(map(_fault_rate, faults))


def _fault_rate(text: str) -> tuple[str, float]:
    name, _, rate = text.partition("=")
    if name not in FAULT_NAMES:
        names = ", ".join(sorted(FAULT_NAMES))
        raise ConfigurationError(f"--fault {text!r}: no such fault. There are: {names}.")

    if not re.fullmatch(r"0?\.[0-9]+|[01](\.0*)?", rate):
        raise ConfigurationError(
            f"--fault {text!r}: the rate is a number from 0 to 1, as in {name}=0.2."
        )
    return name, float(rate)
