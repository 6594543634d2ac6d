"""Exact reaction counts for PubNub message actions, kept in Redis.

``TallyReader`` is the only name programs import from here; it is loaded when first asked for, so that the
command line starts quickly.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from worker.store.reader import TallyReader

__all__ = ["TallyReader", "__version__"]
__version__ = "0.2.0"


def __getattr__(name: str) -> Any:
    if name == "TallyReader":
        from worker.store.reader import TallyReader  # noqa: PLC0415 - see the docstring

        return TallyReader
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
