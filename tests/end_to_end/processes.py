"""Names for ``tests/commands`` and ``test_interrupt.py``; new tests import ``tests.worlds``."""

from tests.crowds import Crowd
from tests.processes import SETTING_PREFIXES
from tests.waiting import wait_until
from tests.worlds import KEY, KEYS, MESSAGE, ROOM, World
from worker.live.answer_queue import QUEUED_ANSWERS

__all__ = ["KEY", "KEYS", "MESSAGE", "OURS", "ROOM", "Crowd", "Stage", "wait_until"]

OURS = SETTING_PREFIXES


class Stage(World):
    """A world with the two methods that only ``tests/commands`` uses."""

    is_true = World.is_exact

    async def fills_the_queue(self) -> None:
        """Give a worker that cannot apply more answers than it holds.

        One is in hand, some are queued, one finds no room. They are long: after a short one the
        worker would wait a while for that one to be applied.
        """
        for number in range(QUEUED_ANSWERS + 2):
            polls = self.emulator.requests["subscribe"] + (number <= QUEUED_ANSWERS)
            for user in range(60):
                self.react(uuid=f"user-{number}-{user}")
            await self._has_polled(polls)

    async def _has_polled(self, times: int) -> None:
        await wait_until(lambda: self.emulator.requests["subscribe"] >= times)
