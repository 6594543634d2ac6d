"""Messages that are ranked with few actions already."""

from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

from worker.store import apply_script, audit, store, user_erasure


@contextmanager
def ranked_above(most: int) -> Iterator[None]:
    """Let the worker rank messages with more actions than this."""
    with (
        patch.object(apply_script, "RANKED_ABOVE", most),
        patch.object(store, "RANKED_ABOVE", most),
        patch.object(audit, "RANKED_ABOVE", most),
        patch.object(user_erasure, "RANKED_ABOVE", most),
    ):
        yield
