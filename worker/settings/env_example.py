"""Every setting with its default, for people to fill in: ``make env-example`` writes it."""

import sys
from collections.abc import Iterable
from typing import Final

from worker.settings.fields import FIELDS, Settings
from worker.settings.masked import as_text

NEEDED: Final = ("PUBNUB_SUBSCRIBE_KEY", "TALLY_CHANNELS")
"""No worker starts without these settings, or others in their place."""
_HEAD: Final = """\
# Copy this to .env and fill it in. It is made from the settings: make env-example
# A line that is commented out shows the default. The environment goes before this file.
# A list is comma-separated text. With keys, tokens or a password in it, this file is a secret:
# keep it to yourself, or let it name files that hold them.
"""


def env_example() -> str:
    """Return the file: the settings that are needed, then the others as documented."""
    needed = _entries(NEEDED, prefix="")
    others = _entries((name for name in FIELDS if name not in NEEDED), prefix="#")
    paragraphs = (
        _HEAD,
        "# --- needed ---\n",
        *needed,
        "# --- as you like ---\n",
        *others,
    )
    return "\n".join(paragraphs)


def _entries(names: Iterable[str], prefix: str) -> list[str]:
    return [_entry(name, prefix) for name in names]


def _entry(name: str, prefix: str) -> str:
    field = Settings.model_fields[FIELDS[name]]
    default = as_text(name, field.default) or ""
    return f"# {field.description}\n{prefix}{name}={default}\n"


if __name__ == "__main__":
    sys.stdout.write(env_example())
