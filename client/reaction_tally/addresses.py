"""Addresses of several servers: the nodes of a Redis Cluster, or Sentinels and their service.

``redis+cluster://[user:password@]host:port,host:port[?options]``
``redis+sentinel://[user:password@]host:port,…/service[/database][?options]``

With ``rediss+`` they speak TLS. Options have the names that redis-py gives them;
``sentinel_username`` and ``sentinel_password`` are the Sentinels' own.
No error quotes a part of an address: it may be a password.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from itertools import filterfalse
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from redis.asyncio.connection import URL_QUERY_ARGUMENT_PARSERS, parse_url

Host = tuple[str, int]


class Kind(Enum):
    """What listens at the hosts of an address."""

    CLUSTER = "cluster"
    SENTINEL = "sentinel"


EXAMPLES: Final = {
    Kind.CLUSTER: "redis+cluster://:password@host:6379,host:6379",
    Kind.SENTINEL: "redis+sentinel://:password@host:26379,host:26379/service/0",
}
SCHEMES: Final = (
    "redis+cluster",
    "rediss+cluster",
    "redis+sentinel",
    "rediss+sentinel",
)
_PORTS: Final = {Kind.CLUSTER: 6379, Kind.SENTINEL: 26379}
_PARTS: Final = re.compile(
    r"(?P<tls>rediss?)\+(?P<kind>cluster|sentinel)://"
    r"(?P<login>(?:[^@/?#\[\]]*@)?)"
    r"(?P<hosts>[^@/?#]*)"
    r"(?P<path>(?:/[^@?#]*)?)"
    r"(?P<query>(?:\?[^@#]*)?)"
)
_SERVICE: Final = re.compile("/(?P<service>[^/]+)(?:/(?P<database>[0-9]{1,9})?)?")
SENTINEL_SECONDS: Final = 2.0
"""A Sentinel that does not answer in time is passed over; it has little to do."""
_OWN: Final = "sentinel_"
_FOR_SENTINELS: Final = re.compile(f"{_OWN}(username|password)")
_SHARED_WITH_SENTINELS: Final = re.compile("ssl_.*|socket_.*")


class AddressError(ValueError):
    """What is wrong with an address, in words that follow its name: "has a port that …"."""


@dataclass(frozen=True, kw_only=True)
class ServersAddress:
    """The address of a cluster or of Sentinels, taken apart."""

    kind: Kind
    has_tls: bool
    hosts: tuple[Host, ...]
    options: Mapping[str, Any]
    """As redis-py takes them: user, password and database among them."""
    service: str = ""

    @property
    def name(self) -> str:
        """What it leads to, for people, without a password."""
        host, port = self.hosts[0]
        if self.kind is Kind.CLUSTER:
            return f"the Redis Cluster of {host}:{port}"
        return f"Redis of the service {self.service!r}"

    @property
    def data_options(self) -> dict[str, Any]:
        """The options of connections to the servers that hold the data."""
        names = filterfalse(_FOR_SENTINELS.fullmatch, self.options)
        return {name: self.options[name] for name in names}

    @property
    def sentinel_options(self) -> dict[str, Any]:
        """The options of connections to Sentinels: their own user, the same TLS and time limits."""
        own = self.options.keys() - self.data_options.keys()
        shared = filter(_SHARED_WITH_SENTINELS.fullmatch, self.options)
        given = {name.removeprefix(_OWN): self.options[name] for name in (*shared, *own)}
        return {
            "socket_timeout": SENTINEL_SECONDS,
            "socket_connect_timeout": SENTINEL_SECONDS,
            **given,
            "ssl": self.has_tls,
        }


def read_servers(url: str) -> ServersAddress | None:
    """Take an address apart; None if it is not the address of several servers.

    Raises:
        AddressError: it is malformed.
    """
    scheme, _, _ = url.partition("://")
    if scheme.lower() not in SCHEMES:
        return None
    kind = Kind(scheme.lower().partition("+")[2])
    parts = _PARTS.fullmatch(scheme.lower() + url[len(scheme) :])
    if not parts:
        raise AddressError(_unreadable(kind))
    hosts = parts["hosts"].split(",")
    options = _options_of(kind, parts["login"], parts["query"])
    read_path = _PATH_READERS[kind]
    service = read_path(parts["path"], options)
    return ServersAddress(
        kind=kind,
        has_tls=parts["tls"] == "rediss",
        hosts=tuple(_host_of(kind, text) for text in hosts),
        options=options,
        service=service,
    )


def _unreadable(kind: Kind) -> str:
    return (
        f"cannot be read. Example: {EXAMPLES[kind]}. "
        "The user and the password stand once, before the first host. "
        "Special characters in a password "
        "(/ @ : # ? [ ] %) must be percent-encoded."
    )


def _no_service(path: str, options: dict[str, Any]) -> str:
    """Refuse a path, and a database: a cluster has one, of number 0."""
    if path not in {"", "/", "/0"} or options.pop("db", 0):
        raise AddressError(
            "has a path that a Redis Cluster cannot have: "
            "it has one database, of number 0. "
            "Write nothing behind the hosts: "
            f"{EXAMPLES[Kind.CLUSTER]}."
        )
    return ""


def _service_of(path: str, options: dict[str, Any]) -> str:
    """Return the service; the number of the database is an option, unless it is there."""
    if path in {"", "/"}:
        raise AddressError(
            "names no service. Write the name "
            "under which the Sentinels know the primary "
            "behind the hosts, such as mymaster: "
            f"{EXAMPLES[Kind.SENTINEL]}."
        )
    parts = _SERVICE.fullmatch(path)
    if not parts:
        raise AddressError(
            "has a path that is no service "
            "and number of a database. "
            "Write the service behind the hosts, "
            f"then one number: {EXAMPLES[Kind.SENTINEL]}."
        )
    if parts["database"]:
        options.setdefault("db", int(parts["database"]))
    return unquote(parts["service"])


_PATH_READERS: Final = {
    Kind.CLUSTER: _no_service,
    Kind.SENTINEL: _service_of,
}


def _options_of(kind: Kind, login: str, query: str) -> dict[str, Any]:
    """Return what redis-py reads from ``user:password@`` and ``?options``.

    Each option is read by itself, so that an error can name it.
    """
    options: dict[str, Any] = {}
    for pair in query.removeprefix("?").split("&"):
        try:
            options |= parse_url(f"redis://{login}host/?{pair}")
        except ValueError:
            raise AddressError(_unusable(kind, pair)) from None
    for name in ("host", "port", "connection_class"):
        options.pop(name, None)
    return options


def _unusable(kind: Kind, pair: str) -> str:
    name, _, _ = pair.partition("=")
    if name not in URL_QUERY_ARGUMENT_PARSERS:
        return _unreadable(kind)
    return (
        f"has an option that cannot be used: {name}. "
        "Options have the names and values "
        "that redis-py gives them."
    )


def _host_of(kind: Kind, text: str) -> Host:
    try:
        parts = urlsplit(f"//{text}")
        host, port = parts.hostname, parts.port
    except ValueError:
        raise AddressError(
            f"has a port that is no number from 1 to 65535. Example: {EXAMPLES[kind]}."
        ) from None
    if not host or port == 0:
        raise AddressError(f"has a host without a name or a port. Example: {EXAMPLES[kind]}.")
    return host, port or _PORTS[kind]
