"""An error that nobody awaits is heard of: ours ends the whole, a library's is an entry."""

import asyncio
from collections.abc import Callable

import pytest
import structlog

from worker.errors import PubNubError
from worker.source.names import Names
from worker.telemetry.unhandled_errors import raising_unhandled_errors


async def for_ever() -> None:
    """Do what never ends."""
    await asyncio.Event().wait()


def ours() -> None:
    """Fail inside code of ours, as a slip would."""
    Names(channels=None).split(1).__next__()  # type: ignore[arg-type] # this is the slip


def refused() -> None:
    """Fail as PubNub's outage does."""
    raise PubNubError("away")


def theirs() -> None:
    """Fail outside our code."""
    raise ValueError("canary")


async def test_an_error_of_ours_in_a_callback_ends_the_work() -> None:
    """With that very error, and the loop's own ways are put back."""
    loop = asyncio.get_running_loop()
    loop.call_soon(ours)
    with pytest.raises(TypeError):
        await raising_unhandled_errors(for_ever())

    assert loop.get_exception_handler() is None
    task = asyncio.current_task()
    assert task
    assert not task.cancelling()


async def test_an_error_of_ours_in_a_forgotten_task_ends_the_work() -> None:
    """As soon as the task is let go of."""

    async def fail() -> None:
        ours()

    async def forget() -> None:
        task = asyncio.create_task(fail())
        await asyncio.wait({task})
        del task
        await for_ever()

    with pytest.raises(TypeError):
        await raising_unhandled_errors(forget())


@pytest.mark.parametrize("fail", [theirs, refused])
async def test_what_is_not_ours_or_passes_is_an_entry(fail: Callable[[], None]) -> None:
    """The work goes on; the entry quotes nothing of the arguments."""
    with structlog.testing.capture_logs() as entries:

        async def work() -> str:
            is_over = asyncio.Event()
            asyncio.get_running_loop().call_soon(fail)
            asyncio.get_running_loop().call_soon(is_over.set)
            await is_over.wait()
            return "done"

        assert await raising_unhandled_errors(work()) == "done"

    (entry,) = entries
    assert (entry["event"], entry["library"], entry["log_level"]) == (
        "library_speaks",
        "asyncio",
        "error",
    )
    assert set(entry) == {"event", "library", "log_level", "exc_info"}


async def test_being_cancelled_is_being_cancelled() -> None:
    """Whoever cancels the work sees it cancelled; an error of the work's own is its own."""
    has_begun = asyncio.Event()

    async def begin() -> None:
        has_begun.set()
        await for_ever()

    work = asyncio.create_task(raising_unhandled_errors(begin()))
    await has_begun.wait()
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work

    async def fail() -> None:
        raise KeyError("own")

    with pytest.raises(KeyError):
        await raising_unhandled_errors(fail())
