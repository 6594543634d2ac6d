"""What INFO says of a Redis: which server it is, and whether it can keep exact counts."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

from worker.errors import RedisUnfitError

FLOOR: Final = (6, 2)
"""The oldest version of Redis that has what the scripts need."""
KEEPS_ALL: Final = "noeviction"
_UNITS: Final = ("bytes", "KiB", "MiB", "GiB", "TiB")


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitness:
    """What a server is, and how it is set."""

    name: str
    """``Valkey 9.1.2`` or ``Redis 7.4.0``."""
    version: str
    """The version of Redis whose commands the server has."""
    mode: str = "standalone"
    """``standalone``, ``cluster`` or ``sentinel``."""
    primary: str | None = None
    """The address of the primary, if the server is a replica."""
    policy: str = KEEPS_ALL
    used_bytes: int = 0
    maxmemory_bytes: int = 0
    """0: no limit."""

    @classmethod
    def of(cls, info: Mapping[str, Any]) -> Self:
        """Return what INFO says; what it leaves out has a default."""
        version = str(info.get("redis_version", "0"))
        valkey = info.get("valkey_version")
        used = int(info.get("used_memory", 0))
        uncounted = int(info.get("mem_not_counted_for_evict", 0))
        return cls(
            name=f"Valkey {valkey}" if valkey else f"Redis {version}",
            version=version,
            mode=_mode(info),
            primary=_primary(info),
            policy=str(info.get("maxmemory_policy", KEEPS_ALL)),
            used_bytes=used - uncounted,
            maxmemory_bytes=int(info.get("maxmemory", 0)),
        )

    def __str__(self) -> str:
        return f"{self.name}, {self.memory}, maxmemory-policy {self.policy}"

    @property
    def is_recent(self) -> bool:
        """Whether the version has what the scripts need."""
        numbers = re.findall(r"\d+", self.version)
        return tuple(map(int, numbers[:2])) >= FLOOR

    @property
    def is_full(self) -> bool:
        """Whether the server refuses writes, because memory is short."""
        if not self.maxmemory_bytes or self.policy != KEEPS_ALL:
            return False
        return self.used_bytes >= self.maxmemory_bytes

    @property
    def memory(self) -> str:
        """The memory in use, in words."""
        used = _size(self.used_bytes)
        if not self.maxmemory_bytes:
            return f"{used} of memory in use, no maxmemory"
        share = 100 * self.used_bytes / self.maxmemory_bytes
        limit = _size(self.maxmemory_bytes)
        return f"{used} of {limit} (maxmemory) in use, {share:.0f} %"

    def check(self, *, allow_eviction: bool, only_reads: bool) -> None:
        """Refuse a server on which counts could not stay exact.

        Raises:
            RedisUnfitError: what is wrong, and what to do.
        """
        self._check_age()
        if not only_reads:
            self._check_writes()
        if self.policy != KEEPS_ALL and not allow_eviction:
            raise RedisUnfitError(
                f"Redis has maxmemory-policy {self.policy}: "
                "it would delete counts when memory is short. "
                "Set it to noeviction, "
                "or accept lost counts with --allow-eviction."
            )

    def _check_age(self) -> None:
        if not self.is_recent:
            raise RedisUnfitError(
                f"Redis is version {self.version}; 6.2 or newer (or any Valkey) is needed."
            )

    def _check_writes(self) -> None:
        if self.primary:
            raise RedisUnfitError(
                "This Redis is a replica, which takes no writes. "
                "Set REDIS_URL to the address of the primary: "
                f"INFO says {self.primary}."
            )
        if self.is_full:
            raise RedisUnfitError(
                f"Redis is full and takes no writes: {self.memory}. "
                "Raise maxmemory, or delete what is not needed."
            )


def _mode(info: Mapping[str, Any]) -> str:
    # Valkey has another name for it.
    mode = info.get("redis_mode") or info.get("server_mode")
    return str(mode or "standalone")


def _primary(info: Mapping[str, Any]) -> str | None:
    if info.get("role") != "slave":
        return None
    host = info.get("master_host", "another host")
    port = info.get("master_port", "?")
    return f"{host}:{port}"


def _size(count: float) -> str:
    """Return ``1.5 MiB`` for 1572864."""
    unit = 0
    while count >= 1024 and unit < len(_UNITS) - 1:
        count /= 1024
        unit += 1
    digits = 1 if count < 10 and unit else 0
    return f"{count:.{digits}f} {_UNITS[unit]}"
