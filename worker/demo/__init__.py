"""The demo: a crowd reacts, the worker counts, the counts are checked."""

from worker.demo.credentials import Access
from worker.demo.demo_run import Plan, run_demo

__all__ = ["Access", "Plan", "run_demo"]
