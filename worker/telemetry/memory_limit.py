"""How much memory this process may take: what its cgroup allows, or what the machine has."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

ROOT: Final = Path("/")
CGROUPS: Final = "sys/fs/cgroup"


def memory_limit(root: Path = ROOT) -> int:
    """Return the lowest limit in bytes; 0 if none can be read."""
    return min(filter(None, _limits(root)), default=0)


def _limits(root: Path) -> Iterator[int]:
    """Yield every limit that holds; 0 for one that cannot be read."""
    yield _machine(root)
    for line in _lines(root / "proc/self/cgroup"):
        _, controllers, path = line.split(":", 2)
        if not controllers:
            # Version 2: a limit of any folder above holds, too.
            folder = root / CGROUPS / path.strip("/")
            yield from _up_to(folder, root / CGROUPS, "memory.max")
        elif "memory" in controllers.split(","):
            folder = root / CGROUPS / "memory" / path.strip("/")
            yield from _up_to(folder, root / CGROUPS / "memory", "memory.limit_in_bytes")


def _up_to(folder: Path, top: Path, name: str) -> Iterator[int]:
    """Yield the limits of a folder, and of those above it."""
    for level in (folder, *folder.parents):
        yield _number(next(iter(_lines(level / name)), ""))
        if level == top:
            return


def _machine(root: Path) -> int:
    for line in _lines(root / "proc/meminfo"):
        if line.startswith("MemTotal:"):
            return 1024 * _number(line.split()[1])
    return 0


def _number(text: str) -> int:
    return int(text) if text.isdecimal() else 0


def _lines(path: Path) -> list[str]:
    try:
        return os.fsdecode(path.read_bytes()).splitlines()
    except OSError:
        return []
