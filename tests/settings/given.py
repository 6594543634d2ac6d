"""What the tests of settings share."""

from collections.abc import Callable

import pytest

from worker.errors import ConfigurationError
from worker.settings.checks import CONFIG, Needs, load

CANARY = "canary"

Give = Callable[..., None]
"""Sets variables of the environment, as in ``give(TALLY_HTTP="off")``."""


def refused(needs: Needs = CONFIG) -> list[str]:
    """Return the lines of the error, none of which shows the canary."""
    with pytest.raises(ConfigurationError) as error:
        load(needs)

    head, *lines = str(error.value).splitlines()
    assert head == "These settings are wrong:"
    assert CANARY not in str(error.value)
    return [line.strip() for line in lines]
