"""Where to listen, as a setting gives it."""

import re
from dataclasses import dataclass
from ipaddress import IPv6Address
from typing import Final, Self

LOOPBACK: Final = "127.0.0.1"
_HOST: Final = re.compile(r"[A-Za-z0-9._-]+")


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen; port 0 is a free one."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def reachable_host(self) -> str:
        """Where this machine reaches whoever listens there."""
        return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)  # noqa: S104 - nobody is bound to it

    @classmethod
    def read(cls, text: str) -> Self:
        """Return the address written as ``host:port``, ``[::1]:port``, ``:port`` or ``port``.

        Raises:
            ValueError: it is none; the sentence says which part is wrong.
        """
        host, colon, port = text.rpartition(":")
        if not colon and not port.isdecimal():
            raise ValueError("give host:port, :port, a port alone, or off")
        if not re.fullmatch(r"[0-9]{1,5}", port, re.ASCII) or int(port) > 65535:
            raise ValueError(f"the port {port!r} is no number from 0 to 65535")
        return cls(_read_host(host), int(port))


def _read_host(host: str) -> str:
    if host.startswith("[") and host.endswith("]"):
        try:
            return str(IPv6Address(host[1:-1]))
        except ValueError:
            raise ValueError(f"{host!r} is no IPv6 address in brackets") from None
    if ":" in host:
        raise ValueError("an IPv6 address stands in brackets, as in [::1]:8080")
    if host and not _HOST.fullmatch(host):
        raise ValueError(
            f"{host!r} is no host name; 0.0.0.0 stands for every address of this machine"
        )
    return host or LOOPBACK
