"""Every setting with its default, for somebody to fill in: ``make env-example`` writes it."""

import sys
from collections.abc import Iterator
from typing import Final

from worker.settings.fields import FIELDS, Settings
from worker.settings.masked import as_text

NEEDED: Final = ("PUBNUB_SUBSCRIBE_KEY", "TALLY_CHANNELS")
"""No worker starts without them, or what stands for them."""
_HEAD: Final = """\
# Copy this to .env and fill it in. It is made from the settings: make env-example
# What is commented out is as it is by default. The environment goes before this file. A list is comma-separated text.
# With keys, tokens or a password in it, it is a secret: keep it to yourself, or let it name files that hold them.
"""


def env_example() -> str:
    """Return the file: what is needed first, then all others in the order of the documentation."""
    needed = [line for name in NEEDED for line in _lines(name, "")]
    others = [line for name in FIELDS if name not in NEEDED for line in _lines(name, "#")]
    return (
        "\n".join(
            (_HEAD, "# --- needed ---", "", *needed, "# --- as you like ---", "", *others)
        ).rstrip("\n")
        + "\n"
    )


def _lines(name: str, comment: str) -> Iterator[str]:
    field = Settings.model_fields[FIELDS[name]]
    yield f"# {field.description}"
    yield f"{comment}{name}={as_text(name, field.default) or ''}"
    yield ""


if __name__ == "__main__":
    sys.stdout.write(env_example())
