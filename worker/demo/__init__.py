"""The demo: the worker counts what a crowd does, and the counts are compared with the truth."""

from worker.demo.demo_run import Plan, run_demo

__all__ = ["Plan", "run_demo"]
