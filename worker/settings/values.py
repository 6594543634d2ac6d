"""Types of settings: how the text of a setting becomes a value."""

import re
from collections.abc import Callable
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, BeforeValidator, ValidationInfo

from worker.settings.name_list import NameListError, read_names
from worker.telemetry.address import Address

_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_DURATION: Final = re.compile(r"([0-9]{1,9}(?:\.[0-9]+)?)([smhd])")
_KEY: Final = re.compile(r"[A-Za-z0-9_-]+")
_ORIGIN: Final = re.compile(r"([A-Za-z0-9.-]+|\[[0-9A-Fa-f:]+\])(:[0-9]{1,5})?")


def _read_names(value: object, info: ValidationInfo) -> object:
    """Return the names in comma-separated text; other values are left to pydantic."""
    if not isinstance(value, str):
        return value
    try:
        return read_names(value)
    except NameListError as error:
        name = f"TALLY_{info.field_name}".upper()
        raise ValueError(
            f"{error.found}. "
            f"Write {name}={error.right_form}: "
            "commas between the names, no brackets, "
            "quotes, white space or invisible characters"
        ) from None


def _from_text(read: Callable[[str], object]) -> BeforeValidator:
    """Return a validator that reads text, and leaves other values to pydantic."""
    return BeforeValidator(lambda value: read(value) if isinstance(value, str) else value)


def _read_seconds(text: str) -> float | str:
    """Return 5400 for ``90m``; pydantic reads any other text."""
    match = _DURATION.fullmatch(text.strip())
    return float(match[1]) * _SECONDS[match[2]] if match else text


def _read_percent(text: str) -> str:
    return text.strip().removesuffix("%").strip()


def _read_address(text: str) -> Address | None:
    return Address.read(text)


def _matching(pattern: re.Pattern[str], reason: str) -> AfterValidator:
    """Return a validator that refuses other text, for this reason."""

    def check(text: str) -> str:
        if not pattern.fullmatch(text):
            raise ValueError(reason)
        return text

    return AfterValidator(check)


TextList = Annotated[tuple[str, ...], BeforeValidator(_read_names)]
"""``a, b`` is two texts."""

Duration = Annotated[float, _from_text(_read_seconds)]
"""Seconds: ``3600``, ``60m`` and ``1h`` are the same."""

Percent = Annotated[float, _from_text(_read_percent)]
"""``20`` and ``20%`` are the same."""

HttpAddress = Annotated[Address | None, _from_text(_read_address)]
"""``off`` is None."""

LogFormat = Annotated[Literal["auto", "json", "console"], _from_text(str.lower)]

LogLevel = Annotated[Literal["debug", "info", "warning", "error"], _from_text(str.lower)]

Key = Annotated[
    str,
    _matching(
        _KEY,
        "a key has only letters, digits, '-' and '_'; copy it again from PubNub's admin portal",
    ),
]
Origin = Annotated[
    str,
    _matching(
        _ORIGIN,
        "give a host name, and a port if need be, without https:// and without a path",
    ),
]
