"""Reads exact counts of PubNub reactions, which the worker of reaction-tally keeps in Redis."""

from reaction_tally.async_reader import AsyncTallyReader
from reaction_tally.errors import (
    InvalidNameError,
    NotPermittedError,
    NotTheseTalliesError,
    RedisUnavailableError,
    TallyReadError,
)
from reaction_tally.reader import TallyReader
from reaction_tally.values import (
    Change,
    Counts,
    Message,
    Page,
    Reaction,
    Reactor,
    RecentMessage,
    Reset,
    TopMessage,
    Who,
)

__all__ = [
    "AsyncTallyReader",
    "Change",
    "Counts",
    "InvalidNameError",
    "Message",
    "NotPermittedError",
    "NotTheseTalliesError",
    "Page",
    "Reaction",
    "Reactor",
    "RecentMessage",
    "RedisUnavailableError",
    "Reset",
    "TallyReadError",
    "TallyReader",
    "TopMessage",
    "Who",
]
__version__ = "0.3.0"
