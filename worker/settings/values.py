"""Types of settings: how the text of a setting becomes a value."""

import re
from collections.abc import Callable
from functools import partial
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, BeforeValidator

from worker.settings.address import Address
from worker.settings.channel_list import split_names
from worker.telemetry.log_format import LogFormat

SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_DURATION: Final = re.compile(r"([0-9]{1,9}(?:\.[0-9]+)?)([smhd])")
_KEY: Final = re.compile(r"[A-Za-z0-9_-]+")
_ORIGIN: Final = re.compile(r"([A-Za-z0-9.-]+|\[[0-9A-Fa-f:]+\])(:[0-9]{1,5})?")


def _from_text(read: Callable[[str], object]) -> BeforeValidator:
    """Return a validator that reads text, and leaves other values to pydantic."""
    return BeforeValidator(partial(_read_if_text, read))


def _read_if_text(read: Callable[[str], object], value: object) -> object:
    return read(value) if isinstance(value, str) else value


def _read_seconds(text: str) -> float | str:
    """Return 5400 for ``90m``; pydantic reads any other text."""
    match = _DURATION.fullmatch(text.strip())
    return float(match[1]) * SECONDS[match[2]] if match else text


def _read_percent(text: str) -> str:
    return text.strip().removesuffix("%").strip()


def _read_address(text: str) -> Address | None:
    text = text.strip()
    return None if text.lower() == "off" else Address.parse(text)


def _check_key(key: str) -> str:
    if not _KEY.fullmatch(key):
        raise ValueError(
            "a key has only letters, digits, '-' and '_'; copy it again from PubNub's admin portal"
        )
    return key


def _check_origin(origin: str) -> str:
    if not _ORIGIN.fullmatch(origin):
        raise ValueError(
            "give a host name, and a port if need be, without https:// and without a path"
        )
    return origin


TextList = Annotated[tuple[str, ...], _from_text(split_names)]
"""``a, b`` is two texts."""

Duration = Annotated[float, _from_text(_read_seconds)]
"""Seconds: ``3600``, ``60m`` and ``1h`` are the same."""

Percent = Annotated[float, _from_text(_read_percent)]
"""``20`` and ``20%`` are the same."""

HttpAddress = Annotated[Address | None, _from_text(_read_address)]
"""``off`` is None."""

LogFormatName = Annotated[LogFormat, _from_text(str.lower)]

LogLevel = Annotated[Literal["debug", "info", "warning", "error"], _from_text(str.lower)]

Key = Annotated[str, AfterValidator(_check_key)]
Origin = Annotated[str, AfterValidator(_check_origin)]
