"""An error that nobody awaits: the worker's own ends the work, a library's is an entry."""

import asyncio
import errno
from collections.abc import Callable

import pytest
import structlog

from worker.errors import PubNubError
from worker.source.names import Names
from worker.telemetry.logging_bridge import raising_unhandled_errors


async def wait_for_ever() -> None:
    """Never end."""
    await asyncio.Event().wait()


def fail_in_the_worker() -> None:
    """Fail inside code of the worker."""
    Names(channels=None).split(1).__next__()  # type: ignore[arg-type] # this is the mistake


def fail_as_in_an_outage() -> None:
    """Fail as PubNub does in an outage."""
    raise PubNubError("away")


def fail_elsewhere() -> None:
    """Fail outside code of the worker."""
    raise ValueError("canary")


async def test_a_failed_callback_of_the_worker_ends_the_work() -> None:
    """With that error, and the loop gets its own handler back."""
    loop = asyncio.get_running_loop()
    loop.call_soon(fail_in_the_worker)
    with pytest.raises(TypeError):
        await raising_unhandled_errors(wait_for_ever())

    assert loop.get_exception_handler() is None
    task = asyncio.current_task()
    assert task
    assert not task.cancelling()


async def test_a_failed_task_of_the_worker_ends_the_work() -> None:
    """As soon as no code refers to the task."""

    async def fail() -> None:
        fail_in_the_worker()

    async def forget() -> None:
        task = asyncio.create_task(fail())
        await asyncio.wait({task})
        del task
        await wait_for_ever()

    with pytest.raises(TypeError):
        await raising_unhandled_errors(forget())


@pytest.mark.parametrize("fail", [fail_elsewhere, fail_as_in_an_outage])
async def test_any_other_error_is_an_entry(fail: Callable[[], None]) -> None:
    """The work goes on, and the entry quotes no arguments."""
    with structlog.testing.capture_logs() as entries:

        async def work() -> str:
            is_over = asyncio.Event()
            asyncio.get_running_loop().call_soon(fail)
            asyncio.get_running_loop().call_soon(is_over.set)
            await is_over.wait()
            return "done"

        assert await raising_unhandled_errors(work()) == "done"

    (entry,) = entries
    assert isinstance(entry.pop("exc_info"), Exception)
    assert entry == {"event": "library_speaks", "library": "asyncio", "log_level": "error"}


async def test_a_cancellation_stays_a_cancellation() -> None:
    """And an error of the work stays that error."""
    has_begun = asyncio.Event()

    async def begin() -> None:
        has_begun.set()
        await wait_for_ever()

    work = asyncio.create_task(raising_unhandled_errors(begin()))
    await has_begun.wait()
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work

    async def fail() -> None:
        raise KeyError("own")

    with pytest.raises(KeyError):
        await raising_unhandled_errors(fail())


async def test_too_many_open_files_are_one_entry() -> None:
    """While a connection waits, asyncio reports it a hundred times a second."""
    loop = asyncio.get_running_loop()

    async def report() -> None:
        for _ in range(100):
            loop.call_exception_handler({"message": "x", "exception": OSError(errno.EMFILE, "x")})

    with structlog.testing.capture_logs() as logs:
        await raising_unhandled_errors(report())

    (entry,) = logs
    assert entry["event"] == "no_file_left"
    assert "LimitNOFILE" in entry["reason"]
