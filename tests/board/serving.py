"""How the tests of the page run a worker."""

from collections.abc import Awaitable, Callable

from tests.bench.in_process import Running

Serve = Callable[..., Awaitable[Running]]
"""Runs a worker in this process, with some settings, until the test ends."""
