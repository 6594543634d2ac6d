"""What REDIS_URL of one server may be: its host, and the number of a database."""

import re
from typing import Final
from urllib.parse import SplitResult, urlsplit

from reaction_tally.addresses import EXAMPLES, Kind
from reaction_tally.addresses import SCHEMES as SERVERS
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
            "REDIS_URL has several hosts. "
            f"Write {EXAMPLES[Kind.CLUSTER]} for a Redis Cluster, "
            f"or {EXAMPLES[Kind.SENTINEL]} for Sentinels."
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
    kinds = ", ".join(f"{scheme}://" for scheme in (*SCHEMES, *SERVERS))
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
