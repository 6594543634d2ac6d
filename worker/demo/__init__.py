"""The demo: a PubNub of its own, a Valkey, the worker as it is deployed and a crowd, held against the truth."""

from worker.demo.demo_run import run_demo
from worker.demo.plan import Plan, Result

__all__ = ["Plan", "Result", "run_demo"]
