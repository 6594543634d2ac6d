"""The emulator with reactions of before, in a process of its own, which imports no more than that takes."""

import asyncio
from collections.abc import Sequence
from multiprocessing.connection import Connection

from worker.emulator import Emulator

Reaction = tuple[str, str, str]
"""Message timetoken, value, user."""


def serve(channel: str, first: int, reactions: Sequence[Reaction], port: Connection) -> None:
    """Be a PubNub that knows them, each a timetoken later than the one before from ``first`` on; say the port."""

    async def main() -> None:
        async with Emulator() as emulator:
            for at, (message, value, user) in enumerate(reactions, first):
                emulator.state.add(
                    channel, message, "reaction", value, user, published=False, at=at
                )
            port.send(int(emulator.origin.rpartition(":")[2]))
            await asyncio.Event().wait()

    asyncio.run(main())
