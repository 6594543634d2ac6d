"""Cancellation that others swallow."""

import asyncio


def heed_cancellation() -> None:
    """Raise CancelledError if this task was cancelled meanwhile; call it after awaiting one of those who swallow that.

    They are PubNub's SDK (it returns an error instead) and, on Python 3.11, redis-py: it sends by ``asyncio.wait_for``,
    which there prefers a result to a cancellation. Without this a Ctrl-C is lost now and then.
    """
    task = asyncio.current_task()
    if task and task.cancelling():
        raise asyncio.CancelledError
