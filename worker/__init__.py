"""Exact reaction counts for PubNub message actions, kept in Redis.

``TallyReader`` is the only name that other programs import from here. It is loaded at its first
use, so that the command line starts quickly.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from worker.store.reader import TallyReader

__all__ = ["TallyReader", "__version__"]
__version__ = "0.2.0"


def __getattr__(name: str) -> object:
    if name == "TallyReader":
        from worker.store.reader import TallyReader  # noqa: PLC0415 - see above

        return TallyReader
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
