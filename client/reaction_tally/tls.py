"""Do servers speak TLS, as their address says? The answer explains a connection that fails."""

import socket
import ssl
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import compress
from typing import Final

from redis import exceptions, sentinel
from redis.asyncio import sentinel as async_sentinel

from reaction_tally.addresses import Host, Kind
from reaction_tally.errors import RedisUnavailableError, TallyReadError

TRY_SECONDS: Final = 1.0
_LONGEST_REPLY: Final = 64
_SILENT: Final = (
    exceptions.ConnectionError,
    exceptions.TimeoutError,
    sentinel.MasterNotFoundError,
    async_sentinel.MasterNotFoundError,
    TimeoutError,
)
"""Other subclasses are answers, such as one about a wrong password."""
_ALL_OR_NONE: Final = " Sentinels and Redis must both speak TLS, or neither."


class Way:
    """The way to Redis, as an address has it. A client that was given has none."""

    def __init__(
        self,
        scheme: str = "",
        hosts: Sequence[Host] = (),
    ) -> None:
        self._scheme = scheme
        self._hosts = hosts
        self.is_known = False
        """Whether Redis has ever answered: then the address is right."""

    def may_be_wrong(self, error: Exception) -> bool:
        """Tell whether an error may come from a wrong address."""
        if self.is_known:
            return False
        origin: BaseException | None = error
        if isinstance(error, exceptions.RedisClusterException):
            origin = error.__cause__
        return type(origin) in _SILENT

    def explained(self, failure: TallyReadError) -> TallyReadError:
        """Return the failure, or what is wrong with the address.

        This takes a second at most.
        """
        sentence = explain_scheme(
            "the address",
            self._scheme,
            self._hosts,
        )
        if sentence:
            return RedisUnavailableError(sentence)
        return failure


def explain_scheme(
    name: str,
    scheme: str,
    hosts: Sequence[Host],
) -> str:
    """Return what an address should begin with; an empty text if nothing is known.

    ``name`` is how people know the address. This takes a second at most.
    """
    if not hosts:
        return ""
    has_tls = scheme.startswith("rediss")
    is_other = _speaks_plain_text if has_tls else _speaks_tls
    with ThreadPoolExecutor(len(hosts)) as pool:
        others = compress(hosts, pool.map(is_other, hosts))
        wrong = next(others, None)
    if wrong is None:
        return ""
    host, port = wrong
    speaks = "speaks no TLS" if has_tls else "speaks TLS"
    needed = scheme.replace("rediss", "redis")
    if not has_tls:
        needed = scheme.replace("redis", "rediss")
    ending = ""
    if scheme.endswith(Kind.SENTINEL.value):
        ending = _ALL_OR_NONE
    return f"{host}:{port} {speaks}: {name} begins with {scheme}://, write {needed}://.{ending}"


def _speaks_plain_text(host: Host) -> bool:
    try:
        with socket.create_connection(host, TRY_SECONDS) as line:
            line.sendall(b"PING\r\n")
            reply = line.recv(_LONGEST_REPLY)
    except OSError:
        return False
    return reply.startswith((b"+", b"-"))


def _speaks_tls(host: Host) -> bool:
    context = ssl.create_default_context()
    # Nothing is sent: whose certificate it is does not matter.
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        with (
            socket.create_connection(host, TRY_SECONDS) as line,
            context.wrap_socket(line),
        ):
            return True
    except OSError:
        return False
