"""A failure of history is logged once for all channels, and its end once."""

import structlog

from tests.bench.bench import Bench, backoff
from worker.applying.retry import Retry, RetryPolicy, history_warning, retry
from worker.errors import PubNubError


def policy(bench: Bench) -> RetryPolicy:
    """Return a policy with one warning for all channels."""

    async def hold(seconds: float) -> None: ...

    return RetryPolicy(
        counted_types=bench.counted_types,
        backoff=backoff,
        hold=hold,
        clock=bench.clock,
        settle_seconds=60,
        tries=None,
        warning=history_warning(bench.clock),
    )


async def test_the_end_of_a_failure_is_logged(bench: Bench) -> None:
    """One request fails, then succeeds."""
    failures = iter([PubNubError("away"), PubNubError("away")])

    async def ask() -> str:
        if error := next(failures, None):
            raise error
        return "now"

    with structlog.testing.capture_logs() as entries:
        assert await retry(ask, "room", policy(bench)) == "now"

    assert [entry["event"] for entry in entries] == ["history_waits", "history_goes_on"]
    assert entries[-1]["failures"] == 2


async def test_an_ended_channel_is_not_waited_for(bench: Bench) -> None:
    """One channel gives up. The failure is over when it is over for the others."""
    shared = policy(bench)
    with structlog.testing.capture_logs() as entries, Retry("hall", shared) as other:
        with Retry("room", shared) as retry:
            await retry.after(PubNubError("away"))
        await other.after(PubNubError("away"))
        other.succeeded()

    assert [entry["event"] for entry in entries] == ["history_waits", "history_goes_on"]
