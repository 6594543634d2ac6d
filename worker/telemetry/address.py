"""The address at which a worker serves its pages.

A health check loads this module, and no other part of the settings.
"""

import re
from typing import Final, NamedTuple, Self

LOOPBACK: Final = "127.0.0.1"
_REACHABLE: Final = {"0.0.0.0": LOOPBACK, "::": "::1"}  # noqa: S104 - nothing listens here
_LOOPBACK: Final = re.compile(r"127(\.[0-9]{1,3}){3}")
_ADDRESS: Final = re.compile(
    r"((?P<host>[A-Za-z0-9._-]*|\[(?P<ipv6>[0-9A-Fa-f:.]+)\]):)?(?P<port>[0-9]{1,5})"
)


class Address(NamedTuple):
    """A host and a port to listen on. Port 0 is a free port."""

    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    @property
    def reachable_host(self) -> str:
        """The host at which this machine reaches the listener."""
        return _REACHABLE.get(self.host, self.host)

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine reaches the listener."""
        host = self.host
        return host in {"localhost", "::1"} or _LOOPBACK.fullmatch(host) is not None

    @classmethod
    def read(cls, text: str) -> Self | None:
        """Return the address that TALLY_HTTP names; None for ``off``.

        Raises:
            ValueError: It is neither.
        """
        text = text.strip()
        return None if text.lower() == "off" else cls.parse(text)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the address in ``host:port``, ``:port`` or ``port``.

        Raises:
            ValueError: The text has none of these forms.
        """
        match = _ADDRESS.fullmatch(text)
        if match is None or int(match["port"]) > 65535:
            raise ValueError(
                "give host:port, [::1]:port, :port, a port from 0 to 65535, or off; "
                "the host 0.0.0.0 is every address of this machine"
            )

        host = match["host"] or LOOPBACK
        if match["ipv6"]:
            from ipaddress import IPv6Address  # noqa: PLC0415 - it is rare, and slow to load

            host = str(IPv6Address(match["ipv6"]))
        return cls(host, int(match["port"]))
