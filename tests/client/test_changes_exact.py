"""A page and its changes are exact at every moment, whatever happens to Redis meanwhile."""

import asyncio
from typing import Any, Final

import pytest
from redis.asyncio import Redis

from tests.client.copies import LAST, Copy, keep
from tests.client.followers import KEYS, collect, reaction
from tests.histories import CHANNEL
from tests.store.journal_follower import snapshot
from tests.store.random_channel import RandomChannel
from tests.waiting import wait_until

SEEDS: Final = range(3)


class Witness:
    """Looks at a channel again and again, as the contract says."""

    def __init__(self, channel: RandomChannel) -> None:
        self._redis = channel.redis
        self.seen: dict[str, Any] = {}

    async def look(self) -> Any:
        """Take a snapshot; return its counts."""
        position, tallies = await snapshot(self._redis, KEYS.prefix(CHANNEL))
        self.seen[position] = tallies
        return tallies

    def expect_same(self, copy: Copy) -> set[str]:
        """Expect that the copy held the same, at each position that both had."""
        both = self.seen.keys() & copy.held.keys()
        assert {at: copy.held[at] for at in both} == {at: self.seen[at] for at in both}
        return both


async def end(channel: RandomChannel, copy: Copy, following: asyncio.Task[None]) -> None:
    """Let the last change happen; expect that the copy is exact."""
    await channel.write(reaction(0, LAST))
    await following
    assert await channel.is_exact(copy)


@pytest.mark.usefixtures("often")
@pytest.mark.parametrize("seed", SEEDS)
async def test_a_page_and_its_changes_are_exact_while_others_write(
    claimed: Redis, reader: Any, seed: int
) -> None:
    """At each position that the copy and a witness had, both held the same. Nothing is reset."""
    channel, copy = RandomChannel(claimed, seed), Copy(CHANNEL)
    witness, is_over = Witness(channel), asyncio.Event()
    copy.read(await reader.page(CHANNEL, channel.messages))

    async def write() -> None:
        while not is_over.is_set():
            await channel.write()
            await asyncio.sleep(channel.random.random() / 200)

    async def watch() -> None:
        while len(witness.seen.keys() & copy.held.keys()) <= 20:
            await witness.look()
        is_over.set()

    following = asyncio.create_task(keep(reader, copy, channel.messages))
    await asyncio.gather(write(), write(), write(), watch())
    await end(channel, copy, following)

    assert len(witness.expect_same(copy)) > 20
    assert copy.resets == 0


STORIES: Final = ("undisturbed", "trimmed", "restored", "emptied", "cut", "everything")


async def happen(channel: RandomChannel, story: str, copies: list[Any]) -> None:
    """Let something happen to Redis, or nothing."""
    kinds = STORIES[1:-1] if story == "everything" else [story]
    kind = channel.random.choice(kinds)
    if channel.random.randrange(5):
        return
    match kind:
        case "trimmed":
            await channel.redis.client_kill_filter(_type="pubsub")
            await channel.write()
            await channel.write()
            await channel.trim()
        case "restored":
            copies.append(await channel.copy())
            await channel.go_back(channel.random.choice(copies))
        case "emptied":
            await channel.go_back(copies[0])  # as a worker has claimed it
        case "cut":
            await channel.redis.client_kill_filter(_type="pubsub")
            await channel.redis.client_kill_filter(_type="normal", skipme=True)


@pytest.mark.usefixtures("often")
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("story", STORIES)
async def test_a_copy_is_exact_whatever_is_lost(
    claimed: Redis, reader: Any, story: str, seed: int
) -> None:
    """It is reset if the journal was trimmed or Redis went back. A cut connection loses nothing."""
    channel, copy = RandomChannel(claimed, seed), Copy(CHANNEL)
    copies, witness = [await channel.copy()], Witness(channel)
    copy.read(await reader.page(CHANNEL, channel.messages))
    following = asyncio.create_task(keep(reader, copy, channel.messages))

    for number in range(80):
        await channel.write()
        await witness.look()
        await happen(channel, story, copies)
        tallies = await witness.look()
        if number % 4 == 0:
            await wait_until(lambda: copy.held.get(copy.position) == tallies)  # noqa: B023
    await end(channel, copy, following)

    witness.expect_same(copy)
    assert copy.resets == 0 or story not in ("undisturbed", "cut")


@pytest.mark.usefixtures("often")
@pytest.mark.parametrize("seed", SEEDS)
async def test_every_change_has_a_position_to_go_on_from(
    claimed: Redis, reader: Any, seed: int
) -> None:
    """A program that ends after any change, and goes on from its position, has lost nothing."""
    channel, copy = RandomChannel(claimed, seed), Copy(CHANNEL)
    copy.read(await reader.page(CHANNEL, channel.messages))

    for number in range(20):
        for _ in range(channel.random.randint(1, 8)):
            await channel.write()
        newest, left = f"newest-{number}", iter(range(channel.random.randint(0, 9)))
        await channel.write(reaction(0, newest))

        def is_enough(item: Any, newest: str = newest, left: Any = left) -> bool:
            return getattr(item, "value", "") == newest or next(left, None) is None

        for item in await collect(reader, is_enough, [CHANNEL], since=copy.since):
            assert not copy.take(item)
    await end(channel, copy, asyncio.create_task(keep(reader, copy, channel.messages)))
