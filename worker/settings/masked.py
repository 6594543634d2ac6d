"""The settings in force, fit to be shown: without secrets or parts of them."""

import re
from collections.abc import Callable, Iterator
from dataclasses import asdict
from types import NoneType
from typing import Any, Final

from worker.settings.fields import FIELDS, SECRETS, Settings
from worker.telemetry.text import escape

NAME_WIDTH: Final = max(map(len, FIELDS))
VALUE_WIDTH: Final = 40

_WRITERS: Final[dict[type, Callable[[Any], str]]] = {
    bool: lambda value: str(value).lower(),
    float: lambda value: f"{value:.15g}",
    tuple: ",".join,
    NoneType: lambda _: "",
}
_EMPTY: Final = {"TALLY_HTTP": "off"}

# A user without a password may be a password without its colon.
_CREDENTIALS: Final = re.compile(r"(?<=://)([^:@/?#]*:(?=[^@]))?[^/?#]*@")
# Any other option may be a part of a password with a "?" in it.
_HARMLESS: Final = (
    "db|health_check_interval|max_connections|protocol|retry_on_timeout"
    "|socket_connect_timeout|socket_keepalive|socket_timeout|timeout"
    "|ssl_ca_certs|ssl_cert_reqs|ssl_certfile|ssl_check_hostname|ssl_keyfile"
)
_OTHER_OPTION: Final = re.compile(
    rf"(?<=[?&])(?!({_HARMLESS})=[^=;&]*(&|$))(?P<name>(sentinel_)?password=)?[^&]+"
)
# Another path may be a part of a password with a "/" in it.
_MASKED_ADDRESS: Final = re.compile(
    r"(unix://([^/?#]*@)?/[^?#@]*"
    r"|rediss?(\+cluster)?://([^/?#]*@)?[^/?#@]*(/[0-9]*)?"
    r"|rediss?\+sentinel://([^/?#]*@)?[^/?#@]*/[^/?#@]+(/[0-9]*)?)"
    r"(\?[^#@]*)?"
)


def as_json(settings: Settings) -> dict[str, list[dict[str, Any]]]:
    """Return every setting and the unknown variables, for programs.

    Settings come in the order of the documentation.
    A value is as the environment would hold it; a secret is masked.
    """
    shown = [
        {
            "name": name,
            "value": show(name, settings),
            "source": settings.source(name),
            "secret": name in SECRETS,
        }
        for name in FIELDS
    ]
    return {"settings": shown, "unknown": list(map(asdict, settings.report.unknown))}


def as_lines(settings: Settings) -> Iterator[str]:
    """Yield a line for each setting, then for each unknown variable, for people."""
    for name in FIELDS:
        value = escape(show(name, settings) or "-")
        source = escape(settings.source(name))
        yield f"{name:<{NAME_WIDTH}}  {value:<{VALUE_WIDTH}}  {source}"

    for unknown in settings.report.unknown:
        yield escape(f"warning: {unknown}")


def as_text(name: str, value: object) -> str | None:
    """Return a value as it is written in the environment; None for an empty one."""
    write = _WRITERS.get(type(value), str)
    return write(value) or _EMPTY.get(name)


def show(name: str, settings: Settings) -> str | None:
    """Return the text of a setting; the length alone of a secret."""
    text = as_text(name, getattr(settings, FIELDS[name]))
    if text is None or name not in SECRETS:
        return text

    return mask_address(text) or f"set, {len(text)} characters"


def mask_address(url: str) -> str | None:
    """Return ``redis://worker:***@cache`` for ``redis://worker:secret@cache``.

    None if the address has another form: its password may stand anywhere.
    """
    if "@" in url.partition("?")[2]:
        return None
    masked = _CREDENTIALS.sub(r"\1***@", url)
    masked = _OTHER_OPTION.sub(r"\g<name>***", masked)
    return masked if _MASKED_ADDRESS.fullmatch(masked) else None
