"""Subscribe, the request that waits for an event or for the idle time."""

import asyncio
from contextlib import suppress

from worker.emulator.calls import Call
from worker.emulator.replies import DROPPED, RefusedError, Reply, service_error
from worker.emulator.state import State
from worker.emulator.stream import REGION, Cursor
from worker.emulator.subscription import Subscription


class LongPolls:
    """The open subscribe requests. Each one waits for its own names only."""

    def __init__(self, state: State, idle_seconds: float) -> None:
        self._state = state
        self._idle_seconds = idle_seconds
        self.waiting = 0
        self._is_closed = False
        self._alarm: asyncio.TimerHandle | None = None

    def open(self) -> None:
        """Begin to release held messages in time, in the running loop."""
        self._is_closed = False
        self._state.stream.on_hold = self._set_alarm
        self._set_alarm()

    def _set_alarm(self) -> None:
        if self._alarm:
            self._alarm.cancel()
        seconds = self._state.stream.seconds_until_release()
        if seconds is not None:
            loop = asyncio.get_running_loop()
            self._alarm = loop.call_later(seconds + 0.001, self._release)

    def _release(self) -> None:
        self._state.stream.release()
        self._set_alarm()

    async def answer(self, subscription: Subscription, call: Call) -> Reply:
        """Answer a handshake at once, another poll with messages."""
        if not subscription.topics():
            raise RefusedError(service_error(400, "Invalid Channel", "Subscribe"))
        cursor = Cursor(call.bound("tt") or 0, call.bound("tr") or REGION)
        now = asyncio.get_running_loop().time
        idle_at = now() if cursor.timetoken == 0 else now() + self._idle_seconds
        while not self._is_closed:
            token = call.query.get("auth")
            refusal = self._state.trouble.lasting("subscribe", subscription, token)
            if refusal:
                return refusal
            answer = self._state.poll(subscription, cursor)
            seconds = idle_at - now()
            if answer.messages or seconds <= 0:
                return Reply(200, answer.body())
            await self._wait_for_event(subscription, seconds)
        return DROPPED

    async def _wait_for_event(self, subscription: Subscription, seconds: float) -> None:
        woken = asyncio.Event()
        listeners = self._state.stream.listeners
        listeners.add(subscription, woken.set)
        self.waiting += 1
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await woken.wait()
        finally:
            self.waiting -= 1
            listeners.remove(subscription, woken.set)

    def close(self) -> None:
        """End every poll at once, without an answer."""
        self._is_closed = True
        self._state.stream.on_hold = lambda: None
        if self._alarm:
            self._alarm.cancel()
        self._state.stream.listeners.call_all()
