"""A duration as people write it, such as ``90``, ``15m`` or ``1h30m``, and as they say it."""

import re
from typing import Final

FORM: Final = "90 (seconds), 90s, 15m, 1h30m or 7d"
"""Every form, for the sentence of an error."""
SECONDS: Final = {
    "d": 86_400,
    "h": 3_600,
    "m": 60,
    "s": 1,
}
"""Unit → seconds, the largest first."""
WORDS: Final = (
    (86_400, "days"),
    (3_600, "hours"),
    (60, "minutes"),
)

_NUMBER: Final = r"[0-9]{1,9}(?:\.[0-9]{1,9})?"
_BARE: Final = re.compile(r"[0-9]{1,15}(?:\.[0-9]{1,9})?")
_PARTS: Final = re.compile("".join(f"(?:({_NUMBER}){unit})?" for unit in SECONDS))


def is_bare(text: str) -> bool:
    """Tell whether it is a number without a unit."""
    return bool(_BARE.fullmatch(text))


def parse_duration(text: str) -> float:
    """Return 5400 for ``1h30m``.

    A larger unit stands before a smaller one.
    A number without a unit is seconds.

    Raises:
        ValueError: The text has another form.
    """
    if is_bare(text):
        return float(text)
    parts = _PARTS.fullmatch(text)
    if parts is None or not text:
        raise ValueError(f"give a time such as {FORM}")
    numbers = parts.groups(default="0")
    sizes = SECONDS.values()
    pairs = zip(numbers, sizes, strict=True)
    seconds = sum(float(number) * size for number, size in pairs)
    # 1.1h is 3960 s, and 3960.0000000000005 as a sum.
    return round(seconds, 6)


def span(seconds: float) -> str:
    """Return ``12 days``: two of a unit at least, or minutes."""
    for size, unit in WORDS:
        count = int(seconds // size)
        if count >= 2:
            return f"{count} {unit}"
    return "a minute"
