"""The demo: the worker counts what a crowd does.

All counts are compared with the truth in the end.
"""

from worker.demo.demo_run import run_demo
from worker.demo.plan import Plan, Result

__all__ = ["Plan", "Result", "run_demo"]
