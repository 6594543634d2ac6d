"""The one request that waits: a subscribe is answered when there is something to say, or after the idle time."""

import asyncio
from contextlib import suppress

from worker.emulator.calls import Call
from worker.emulator.replies import DROPPED, RefusedError, Reply, service_error
from worker.emulator.state import State
from worker.emulator.stream import REGION, Cursor
from worker.emulator.subscription import Subscription


class LongPolls:
    """Keeps subscribe requests open. Each waits for its own names, so an event wakes nobody it does not concern."""

    def __init__(self, state: State, idle_seconds: float) -> None:
        self._state = state
        self._idle_seconds = idle_seconds
        self.waiting = 0
        self._closed = False
        self._alarm: asyncio.TimerHandle | None = None

    def open(self) -> None:
        """Begin: from now on what is held back is released in time, while a loop runs."""
        self._closed = False
        self._state.stream.on_hold = self._set_alarm
        self._set_alarm()

    def _set_alarm(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        seconds = self._state.stream.seconds_until_release()
        self._alarm = (
            None
            if seconds is None
            else asyncio.get_running_loop().call_later(seconds + 0.001, self._release)
        )

    def _release(self) -> None:
        self._state.stream.release()
        self._set_alarm()

    async def answer(self, subscription: Subscription, call: Call) -> Reply:
        """Answer one subscribe request: at once if it is a handshake or there are messages, else when there are."""
        if not subscription.channels and not subscription.groups:
            raise RefusedError(service_error(400, "Invalid Channel", "Subscribe"))
        cursor = Cursor(call.bound("tt") or 0, call.bound("tr") or REGION)
        deadline = asyncio.get_running_loop().time() + self._idle_seconds
        while not self._closed:
            if refusal := self._state.trouble.lasting(
                "subscribe", subscription, call.query.get("auth")
            ):
                return refusal
            answer = self._state.poll(subscription, cursor)
            left = deadline - asyncio.get_running_loop().time()
            if answer.messages or cursor.timetoken == 0 or left <= 0:
                return Reply(200, answer.body())
            await self._something_or(left, subscription)
        return DROPPED

    async def _something_or(self, seconds: float, subscription: Subscription) -> None:
        woken = asyncio.Event()
        self._state.stream.listen(subscription, woken.set)
        self.waiting += 1
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await woken.wait()
        finally:
            self.waiting -= 1
            self._state.stream.unlisten(subscription, woken.set)

    def close(self) -> None:
        """End every poll at once, without an answer."""
        self._closed = True
        self._state.stream.on_hold = None
        if self._alarm is not None:
            self._alarm.cancel()
        self._state.stream.wake_all()
