"""The demo: a crowd reacts, the worker counts, the counts are checked."""

from worker.demo.demo_run import Plan, run_demo

__all__ = ["Plan", "run_demo"]
