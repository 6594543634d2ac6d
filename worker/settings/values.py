"""Types of settings: how the text of a setting becomes a value."""

import re
from collections.abc import Callable
from ipaddress import IPv6Address
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, BeforeValidator, StringConstraints, ValidationInfo

from worker.domain.duration import is_bare, parse_duration
from worker.domain.shards import Shard
from worker.settings.name_list import NameListError, read_names
from worker.telemetry.address import Address

SECONDS_PER_DAY: Final = 86_400
_KEY: Final = re.compile(r"[A-Za-z0-9_-]+")
_LABEL: Final = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_HOST: Final = rf"{_LABEL}(?:\.{_LABEL})*\.?"
_ORIGIN: Final = re.compile(
    r"(?![^:]{254})"
    rf"(?:{_HOST}|\[(?P<ipv6>[0-9A-Fa-f:.]+)\])"
    r"(?::(?P<port>[1-9][0-9]{0,4}))?"
)
"""A host of at most 253 characters, and a port."""
_LARGEST_PORT: Final = 65_535
_API_TOKEN: Final = re.compile(r"[!-~]{16,1024}")
_WEB_ORIGIN: Final = re.compile(r"\*|https?://[A-Za-z0-9.\[\]:-]+")


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


def _read_seconds(text: str) -> float:
    return parse_duration(text.strip())


def _read_whole_seconds(text: str) -> float:
    seconds = _read_seconds(text)
    if seconds % 1:
        raise ValueError(
            f"{text.strip()} is {seconds:.15g} s; give whole seconds, such as 5400 or 1h30m"
        )
    return seconds


def _read_days(text: str) -> float:
    """Return 30 for ``30`` and ``30d``, and 1.5 for ``36h``."""
    text = text.strip()
    if is_bare(text):
        return float(text)
    try:
        seconds = parse_duration(text)
    except ValueError:
        raise ValueError("give days such as 30, or a time such as 30d or 36h") from None
    return seconds / SECONDS_PER_DAY


def _read_percent(text: str) -> str:
    return text.strip().removesuffix("%").strip()


def _read_address(text: str) -> Address | None:
    return Address.read(text)


def _read_shard(text: str) -> Shard:
    return Shard.read(text)


def _check_origin(text: str) -> str:
    """Refuse a host that no lookup takes, and a port that does not exist."""
    match = _ORIGIN.fullmatch(text)
    if match is None:
        raise ValueError(
            "give a host name, and a port if need be, without https:// and without a path"
        )
    port = int(match["port"] or 1)
    if port > _LARGEST_PORT:
        raise ValueError(f"there is no port {port}; give one from 1 to {_LARGEST_PORT}")
    if match["ipv6"]:
        _check_ipv6(match["ipv6"])
    return text


def _check_ipv6(text: str) -> None:
    try:
        IPv6Address(text)
    except ValueError:
        raise ValueError(f"[{text}] is no IPv6 address; give one such as [::1]") from None


def _read_origins(value: object, info: ValidationInfo) -> object:
    origins = _read_names(value, info)
    if isinstance(origins, tuple) and not all(map(_WEB_ORIGIN.fullmatch, origins)):
        raise ValueError(
            "give origins as browsers send them, such as https://example.com: "
            "no path, and no / at the end; or * for all"
        )
    return origins


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

WholeDuration = Annotated[int, _from_text(_read_whole_seconds)]
"""The same, in whole seconds."""

Days = Annotated[float, _from_text(_read_days)]
"""Days: ``1.5`` and ``36h`` are the same."""

Percent = Annotated[float, _from_text(_read_percent)]
"""``20`` and ``20%`` are the same."""

ShardOf = Annotated[Shard | None, _from_text(_read_shard)]
"""``0/3`` is the first one of three."""

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
ApiToken = Annotated[
    str,
    StringConstraints(strip_whitespace=True),
    _matching(
        _API_TOKEN,
        "a token has 16 to 1024 printable ASCII characters, and no space; "
        "make one with: openssl rand -hex 32",
    ),
]

Origins = Annotated[tuple[str, ...], BeforeValidator(_read_origins)]
"""Origins of web pages: scheme, host, and port."""

Origin = Annotated[str, AfterValidator(_check_origin)]
