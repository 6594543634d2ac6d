"""A reader that may run scripts, and one that may not: both must read the same."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from random import Random
from typing import Any, Final

from reaction_tally import AsyncTallyReader, Page
from tests.histories import CHANNEL, MESSAGE

STEPS: Final = "steps"
"""The user of Redis who may run no script."""
READS: Final = ("+get", "+exists", "+hgetall", "+hlen", "+hmget", "+hget", "+zcard", "+zrange")


@dataclass
class Readers:
    """Both."""

    script: AsyncTallyReader
    steps: AsyncTallyReader

    async def same_page(self, *words: Any, **options: Any) -> Page:
        """Ask both the same; return what both answer."""
        page = await self.script.page(CHANNEL, *words, **options)
        assert await self.steps.page(CHANNEL, *words, **options) == page
        return page

    async def random_page(self, random: Random) -> None:
        """Ask both something."""
        await self.same_page(
            random.sample(["1234567890", MESSAGE, "5"], 3)[: random.randint(1, 3)],
            types=random.choice([None, ["re:act"], ["other"]]),
            me=random.choice([None, "ana", "u: 1"]),
            names=random.randrange(3),
        )


@asynccontextmanager
async def both_readers(url: str, redis: Any) -> AsyncIterator[Readers]:
    """Yield both, on one server."""
    rules = ("reset", "on", ">secret", "~tally:*", "+multi", "+exec", *READS)
    await redis.execute_command("ACL", "SETUSER", STEPS, *rules)
    limited = url.replace("redis://", f"redis://{STEPS}:secret@")
    async with (
        AsyncTallyReader.from_url(url) as script,
        AsyncTallyReader.from_url(limited) as steps,
    ):
        yield Readers(script, steps)
    await redis.execute_command("ACL", "DELUSER", STEPS)
