"""The memory that a worker may take, as Linux tells it."""

from pathlib import Path

import pytest

from worker.telemetry.memory_limit import memory_limit

MEMINFO = "MemTotal:        2000 kB\nMemFree:  1 kB\n"
MACHINE = 2000 * 1024
UNIT = "0::/system.slice/tally.service\n"
GROUPS = "sys/fs/cgroup"


@pytest.mark.parametrize(
    ("files", "limit"),
    [
        ({}, 0),
        ({"proc/meminfo": MEMINFO}, MACHINE),
        ({"proc/meminfo": MEMINFO, "proc/self/cgroup": "nonsense:0:\n"}, MACHINE),
        ({"proc/self/cgroup": "0::/\n", f"{GROUPS}/memory.max": "5000\n"}, 5000),
        ({"proc/self/cgroup": "0::/\n", f"{GROUPS}/memory.max": "max\n"}, 0),
        (
            {"proc/self/cgroup": UNIT, f"{GROUPS}/system.slice/tally.service/memory.max": "700\n"},
            700,
        ),
        (
            {
                "proc/self/cgroup": UNIT,
                f"{GROUPS}/system.slice/tally.service/memory.max": "700\n",
                f"{GROUPS}/system.slice/memory.max": "600\n",
            },
            600,
        ),
        (
            {
                "proc/meminfo": MEMINFO,
                "proc/self/cgroup": "9:cpu,memory:/docker/x\n1:name=systemd:/y\n",
                f"{GROUPS}/memory/docker/x/memory.limit_in_bytes": "9223372036854771712\n",
                f"{GROUPS}/memory/memory.limit_in_bytes": "4000\n",
            },
            4000,
        ),
    ],
    ids=["nothing", "machine", "odd", "container", "no limit", "unit", "slice", "version 1"],
)
def test_the_lowest_limit_counts(tmp_path: Path, files: dict[str, str], limit: int) -> None:
    """A limit may stand at the process's own group, or at one above it."""
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    assert memory_limit(tmp_path) == limit


def test_this_process_has_a_limit() -> None:
    """Of this machine at least."""
    assert memory_limit() > 0
