"""History that fails and works again: said once for all who ask, and once that it is over."""

import structlog

from tests.bench.bench import Bench, backoff
from worker.applying.retry import Retry, RetryPolicy, history_warning, retry
from worker.errors import PubNubError


def policy(bench: Bench) -> RetryPolicy:
    """Return policy on which failures are told together."""

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


async def test_it_is_said_when_history_works_again(bench: Bench) -> None:
    """By whoever asked: in vain first, then not."""
    failures = iter([PubNubError("away"), PubNubError("away")])

    async def ask() -> str:
        if error := next(failures, None):
            raise error
        return "now"

    with structlog.testing.capture_logs() as entries:
        assert await retry(ask, "room", policy(bench)) == "now"

    assert [entry["event"] for entry in entries] == ["history_waits", "history_goes_on"]
    assert entries[-1]["failures"] == 2


async def test_who_has_ended_is_not_waited_for(bench: Bench) -> None:
    """One gives up; it works again when it works for the others."""
    shared = policy(bench)
    with structlog.testing.capture_logs() as entries, Retry("hall", shared) as other:
        with Retry("room", shared) as retry:
            await retry.after(PubNubError("away"))
        await other.after(PubNubError("away"))
        other.succeeded()

    assert [entry["event"] for entry in entries] == ["history_waits", "history_goes_on"]
