"""The fixtures of this folder's tests."""

from tests.bench.fixtures import bench, emulator, idle_seconds, mortal, quick_waits, world

__all__ = ["bench", "emulator", "idle_seconds", "mortal", "quick_waits", "world"]
