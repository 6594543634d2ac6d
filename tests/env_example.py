"""The example of a ``.env`` file; ``make env-example`` writes it."""

import sys
from typing import Final

from worker.settings.fields import FIELDS, Settings
from worker.settings.masked import as_text

NEEDED: Final = ("PUBNUB_SUBSCRIBE_KEY", "TALLY_CHANNELS")
"""No worker starts without these, or others in their place."""
_HEAD: Final = """\
# Copy this to .env and fill it in. It is made from the settings: make env-example
# A line that is commented out shows the default.
# The environment goes before this file. A list is comma-separated text.
# With keys, tokens or a password in it, this file is a secret:
# keep it to yourself, or let it name files that hold them.
"""

_COMPOSE: Final = """\
# --- for deploy/compose.yaml alone; no setting of the worker ---

# The folder with the files of the key, the token and the address of Redis.
#SECRETS_FOLDER=./secrets.example
"""


def env_example() -> str:
    """Return the needed settings, then the others in order."""
    others = [name for name in FIELDS if name not in NEEDED]
    paragraphs = (
        _HEAD,
        "# --- needed ---\n",
        *map(_entry, NEEDED),
        "# --- as you like ---\n",
        *map(_entry, others),
        _COMPOSE,
    )
    return "\n".join(paragraphs)


def _entry(name: str) -> str:
    field = Settings.model_fields[FIELDS[name]]
    default = as_text(name, field.default) or ""
    comment = "" if name in NEEDED else "#"
    return f"# {field.description}\n{comment}{name}={default}\n"


if __name__ == "__main__":
    sys.stdout.write(env_example())
