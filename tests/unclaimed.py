"""Readers of a namespace that no worker has claimed: tests write tallies by themselves."""

from typing import Any

from redis.asyncio import Redis

from reaction_tally import AsyncTallyReader
from reaction_tally.keys import DEFAULT_NAMESPACE
from reaction_tally.operations import Operations
from reaction_tally.reads import Reads
from reaction_tally.senders import AsyncSender


class UnclaimedOperations(Operations):
    """Operations that do without the key ``tally:meta``."""

    def expect_schema(self, reply: Any) -> None:
        """Expect nothing."""


class UnclaimedReader(AsyncTallyReader):
    """A reader that does without the key ``tally:meta``."""

    def __init__(self, redis: Redis | AsyncSender, namespace: str = DEFAULT_NAMESPACE) -> None:
        super().__init__(redis, namespace)
        self.reads = Reads(UnclaimedOperations(namespace, "a test"))
