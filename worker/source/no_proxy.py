"""NO_PROXY: the hosts that are reached without a proxy."""

import re
from collections.abc import Iterator
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Final

from worker.errors import ConfigurationError

EVERY_HOST: Final = "*"
_SEPARATORS: Final = re.compile(r"[\s,]+")
_NAME: Final = re.compile(
    r"(?:\*?\.)?"
    r"(?P<host>[\w-]+(?:\.[\w-]+)*|\[[0-9a-f:.]+\])"
    r"\.?(?::(?P<port>[0-9]{1,5}))?"
)


def is_listed(host: str, port: int, text: str) -> bool:
    """Tell whether NO_PROXY has a host: by its name, its end, or its network.

    Raises:
        ConfigurationError: An entry has a form that is not understood.
            It is not quoted: it may be a URL with a password.
    """
    host = host.lower().removesuffix(".")
    entries = filter(None, _SEPARATORS.split(text.lower()))
    # Each entry is read, also behind one that matches.
    found = [_matches(entry, number, host, port) for number, entry in enumerate(entries, 1)]
    return any(found)


def _matches(entry: str, number: int, host: str, port: int) -> bool:
    if entry == EVERY_HOST:
        return True
    for network in _networks(entry):
        return _is_in(host, network)
    match = _NAME.fullmatch(entry)
    if match is None:
        raise ConfigurationError(
            f"NO_PROXY: entry {number} has a form that is not understood. "
            "Write ps.pndsn.com, .pndsn.com, *.pndsn.com, a name with a port, "
            "an address such as 10.0.0.1, a network such as 10.0.0.0/8, or *."
        )
    if int(match["port"] or port) != port:
        return False
    name = match["host"].strip("[]")
    return f".{host}".endswith(f".{name}")


def _networks(entry: str) -> Iterator[IPv4Network | IPv6Network]:
    """Yield the network of an entry such as ``10.0.0.0/8``, if it is one."""
    try:
        yield ip_network(entry.strip("[]"), strict=False)
    except ValueError:
        return


def _is_in(host: str, network: IPv4Network | IPv6Network) -> bool:
    try:
        return ip_address(host) in network
    except ValueError:
        return False
