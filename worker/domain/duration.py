"""A duration as people write it: ``90``, ``90s``, ``15m``, ``1h30m``, ``7d``."""

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
