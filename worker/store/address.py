"""What REDIS_URL may be: the address of one server, and the number of a database."""

import re
from typing import Final
from urllib.parse import SplitResult, urlsplit

from worker.errors import ConfigurationError

SCHEMES: Final = ("redis", "rediss", "unix")
UNREADABLE: Final = (
    "REDIS_URL cannot be read. "
    "Example: redis://:password@host:6379/0. "
    "Special characters in a password (/ @ : # ? [ ] %) "
    "must be percent-encoded."
)
_DATABASE: Final = re.compile(r"/?|/[0-9]{1,9}")
_CUT: Final = re.compile(r"#|\?.*@")
"""A # or ? of a password that is not encoded: redis-py takes what is before it for a host."""
_OTHER_SERVERS: Final = {"sentinel": "Sentinels", "cluster": "a Redis Cluster"}


def check_address(url: str) -> None:
    """Refuse what redis-py would misunderstand. No part is quoted: it may be a password.

    Raises:
        ConfigurationError: what the address is, and what it may be.
        ValueError: the address is malformed.
    """
    address = urlsplit(url)
    _check_scheme(address.scheme)
    if _CUT.search(url):
        raise ValueError
    if address.scheme == "unix":
        return
    _, _, hosts = address.netloc.rpartition("@")
    if "," in hosts:
        raise ConfigurationError(
            "REDIS_URL has several hosts, as addresses of "
            "Sentinels or of a Redis Cluster have. "
            "The worker needs the address of one server: "
            "redis://host:6379/0."
        )
    _check_database(address.path)
    _check_port(address)


def _check_port(address: SplitResult) -> None:
    """Refuse a port that is none. A path with an @ was refused before as part of a password."""
    try:
        _ = address.port
    except ValueError:
        raise ConfigurationError(
            "REDIS_URL has a port that is no number from 1 to 65535. "
            "Example: redis://:password@host:6379/0."
        ) from None


def _check_scheme(scheme: str) -> None:
    if scheme in SCHEMES:
        return
    _, _, kind = scheme.partition("+")
    servers = _OTHER_SERVERS.get(kind)
    if servers:
        raise ConfigurationError(
            f"REDIS_URL is the address of {servers}. "
            "The worker needs the address of one server: "
            "redis://host:6379/0."
        )
    kinds = ", ".join(f"{scheme}://" for scheme in SCHEMES)
    raise ConfigurationError(
        f"REDIS_URL must begin with one of {kinds}. Leave it unset for an embedded Valkey."
    )


def _check_database(path: str) -> None:
    if "@" in path:
        raise ValueError
    if not _DATABASE.fullmatch(path):
        raise ConfigurationError(
            "REDIS_URL has a path that is no number of a database. "
            "Write one number behind the host, and nothing after it: "
            "redis://host:6379/0."
        )
