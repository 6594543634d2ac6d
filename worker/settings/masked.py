"""What is in force, and where each value comes from, fit to be shown: no secret, nor a piece of one, is in it."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

from worker.settings.fields import FIELDS, SECRETS, Settings
from worker.telemetry.text import escape

_HIDDEN: Final = "***"
_WIDEST: Final = 40
"""What is longer stands out of its column."""
# What an address may say beside its secrets; anything else in it is hidden.
_HARMLESS: Final = frozenset(
    {
        "db",
        "health_check_interval",
        "max_connections",
        "protocol",
        "retry_on_timeout",
        "socket_connect_timeout",
        "socket_keepalive",
        "socket_timeout",
        "ssl_ca_certs",
        "ssl_cert_reqs",
        "ssl_certfile",
        "ssl_check_hostname",
        "ssl_keyfile",
        "timeout",
    }
)


@dataclass(frozen=True, slots=True)
class InForce:
    """A setting: its value as one would write it, None where there is none; of a secret, only that it is set."""

    name: str
    value: str | None
    source: str
    secret: bool


def in_force(settings: Settings) -> list[InForce]:
    """Return every setting, in the order of the documentation."""
    return [
        InForce(
            name, _shown(name, getattr(settings, field)), settings.source(name), name in SECRETS
        )
        for name, field in FIELDS.items()
    ]


def as_json(settings: Settings) -> dict[str, Any]:
    """Return it for programs, with what looks like a setting and is none."""
    return {
        "settings": [asdict(each) for each in in_force(settings)],
        "unknown": [asdict(each) for each in settings.given.unknown],
    }


def as_lines(settings: Settings) -> Iterator[str]:
    """Yield it for people: a line for each setting, then one for each variable that looks like one and is none."""
    rows = [
        (each.name, "-" if each.value is None else escape(each.value), escape(each.source))
        for each in in_force(settings)
    ]
    widths = [min(max(len(row[column]) for row in rows), _WIDEST) for column in (0, 1)]
    for name, value, source in rows:
        yield f"{name:<{widths[0]}}  {value:<{widths[1]}}  {source}"
    yield from (escape(f"warning: {unknown}") for unknown in settings.given.unknown)


def as_text(name: str, value: object) -> str | None:
    """Return a value as one would write it in the environment; None where there is nothing to write."""
    match value:
        case None:
            return "off" if name == "TALLY_HTTP" else None
        case bool():
            return str(value).lower()
        case float():
            return str(int(value)) if value.is_integer() else str(value)
        case tuple():
            return ",".join(map(str, value)) or None
        case _:
            return str(value)


def _shown(name: str, value: object) -> str | None:
    text = as_text(name, value)
    if text is None or name not in SECRETS:
        return text
    return (
        masked_address(text) if name == "REDIS_URL" else None
    ) or f"set, {len(text)} character{'s' * (len(text) != 1)}"


def masked_address(url: str) -> str | None:
    """Return an address without its password; None where another part of it may be one, a ``/`` or ``#`` unescaped."""
    parts = urlsplit(url)
    user, at, host = parts.netloc.rpartition("@")
    path = parts.path.strip("/")
    is_plain = path.isdecimal() or not path or (parts.scheme == "unix" and "@" not in path)
    if not is_plain or "#" in url or "@" in parts.query:
        return None
    # A user without a password is more often a password whose colon was forgotten.
    name, _, password = user.partition(":")
    who = (f"{name}:{_HIDDEN}" if password else _HIDDEN) if at else ""
    query = "&".join(
        _masked_option(key, value) for key, value in parse_qsl(parts.query, keep_blank_values=True)
    )
    return f"{parts.scheme}://{who}{at}{host}{parts.path}{query and '?'}{query}"


def _masked_option(key: str, value: str) -> str:
    if key in _HARMLESS and not set(value) & set(
        "=;"
    ):  # one that was meant to end there, and another
        return f"{key}={value}"
    return f"{key}={_HIDDEN}" if key == "password" else _HIDDEN
