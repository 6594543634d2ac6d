"""PubNub's clock is asked seldom, and never ahead of the truth."""

import asyncio
from random import Random

import pytest

from tests.bench.bench import Clock
from worker.domain.position import TICKS_PER_SECOND, from_seconds
from worker.errors import PubNubError
from worker.source.steady_clock import ANCHOR_SECONDS, SteadyClock

EPOCH = 1_760_000_000.0


class PubNub:
    """A service whose clock may run slower than ours; an answer takes a while each way."""

    def __init__(self, clock: Clock, rate: float = 1.0, way: float = 0.0) -> None:
        self.clock = clock
        self.rate = rate
        self.way = way
        self.asked = 0
        self.fails = False

    @property
    def truth(self) -> float:
        """Its time, in seconds."""
        return EPOCH + self.rate * self.clock.now

    async def ask(self) -> str:
        """Answer."""
        self.asked += 1
        await asyncio.sleep(0)
        if self.fails:
            raise PubNubError("no answer")
        self.clock.now += self.way
        time = from_seconds(self.truth)
        self.clock.now += self.way
        return time


def behind(pubnub: PubNub, now: str) -> float:
    """Return by how many seconds a time is behind PubNub's."""
    return pubnub.truth - int(now) / TICKS_PER_SECOND


async def test_pubnub_is_asked_once_in_ten_minutes() -> None:
    """However often the time is read, and by however many tasks."""
    clock = Clock()
    pubnub = PubNub(clock)
    steady = SteadyClock(pubnub.ask, clock)
    await asyncio.gather(*(steady.now() for _ in range(50)))
    for _ in range(100):
        clock.now += ANCHOR_SECONDS / 101
        await steady.now()
    assert pubnub.asked == 1

    clock.now += ANCHOR_SECONDS
    await steady.now()
    assert pubnub.asked == 2


@pytest.mark.parametrize("seed", range(20))
async def test_it_is_never_ahead(seed: int) -> None:
    """Slow answers, a clock of ours that runs fast, a machine that sleeps."""
    random, clock = Random(seed), Clock()
    pubnub = PubNub(clock, rate=random.uniform(0.9992, 1.0008))
    steady = SteadyClock(pubnub.ask, clock)
    for _ in range(200):
        pubnub.way = random.choice((0.0, 0.02, 4.0))
        now = await steady.now()
        assert -1e-6 <= behind(pubnub, now) <= 4 + 2 * ANCHOR_SECONDS / 1000
        clock.now += random.choice((0.001, 1.0, 59.0, 7200.0))


async def test_a_failure_is_raised_and_asked_again() -> None:
    """An answer that is old is not used any longer."""
    clock = Clock()
    pubnub = PubNub(clock)
    steady = SteadyClock(pubnub.ask, clock)
    await steady.now()
    clock.now += 2 * ANCHOR_SECONDS
    pubnub.fails = True
    with pytest.raises(PubNubError):
        await steady.now()
    pubnub.fails = False
    assert behind(pubnub, await steady.now()) < 1e-3
