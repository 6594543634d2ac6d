"""The fixtures of this folder's tests."""

from tests.bench.fixtures import bench, emulator, idle_seconds, quick_waits

__all__ = ["bench", "emulator", "idle_seconds", "quick_waits"]
