"""One request through the SDK, without its two surprises.

The SDK returns errors instead of raising them. It also swallows the
cancellation of the task that waits for it.
"""

import asyncio
from typing import Any

from pubnub.enums import PNStatusCategory

from worker.source.transport import LostError, Response


async def send(endpoint: Any) -> Response:
    """Send one request and return the answer, whatever its status.

    Raises:
        LostError: There is no answer.
        CancelledError: The task was cancelled.
    """
    before = _cancellations()
    try:
        reply = await endpoint.future()
    except Exception as error:  # the SDK's own error paths can fail, too
        reply = error
    status = getattr(reply, "status", None)
    if getattr(status, "category", None) == PNStatusCategory.PNCancelledCategory:
        before = 0  # the task was cancelled before it sent the request
    if _cancellations() > before:
        raise asyncio.CancelledError
    response: Response | None = getattr(status, "client_response", None)
    if response is None:
        raise LostError(_cause(reply, status))
    return response


def _cancellations() -> int:
    """Return how often the running task was cancelled."""
    task = asyncio.current_task()
    return task.cancelling() if task else 0


def _cause(reply: object, status: object) -> str:
    """Say why there is no answer. The SDK's own words may contain the URL."""
    data = getattr(status, "error_data", None)
    cause = getattr(data, "exception", reply)
    if isinstance(cause, LostError):
        return str(cause)
    return f"no answer ({type(cause).__name__})"
