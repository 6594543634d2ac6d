"""What a reader asks Redis, and what it makes of the replies. Nothing here does I/O.

An operation yields commands, which are sent in one round trip.
It receives their replies, where an error is a value, and returns its result.
Both readers run the same operations.
"""

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from itertools import compress
from typing import Any, Final, TypeVar

from redis.exceptions import ResponseError

from reaction_tally.errors import NotPermittedError, NotTheseTalliesError
from reaction_tally.keys import (
    SCHEMA,
    Keys,
    heartbeat_age,
    tally_parts,
)
from reaction_tally.replies import (
    check_reply,
    is_forbidden,
    pairs,
    text,
    texts,
    translated,
)
from reaction_tally.values import Counts, RecentMessage

Command = tuple[str | int, ...]
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Request:
    """Commands of one round trip; of one instant, if they are atomic."""

    commands: Sequence[Command]
    is_atomic: bool = False


@dataclass(frozen=True, slots=True)
class Group:
    """Asks which keys one command may name: all of a server, or those of a slot in a cluster.

    The answer has a list for each round trip, with lists of keys for its commands.
    """

    keys: Sequence[str]
    most: int
    """Keys of one round trip."""


Operation = Generator[Request, Sequence[Any], Result]
GroupedOperation = Generator[Request | Group, Sequence[Any], Result]
"""One that reads keys of many channels, with commands of several keys."""

SCAN: Final = 1_000
"""Channels that one round trip asks for."""


class Operations:
    """The operations of one namespace."""

    def __init__(self, namespace: str, where: str) -> None:
        """``where`` names the server and the database in errors."""
        self.keys = Keys(namespace)
        self.where = where
        self.is_known = False
        """Whether these are tallies: the schema was right once."""
        self.is_script_refused = False
        """Whether an ACL has refused one: it is not asked again."""

    def check(self) -> Operation[None]:
        """Make sure that these are tallies of the schema that this version reads."""
        (schema,) = yield Request([self.schema])
        self.expect_schema(schema)

    def get(self, channel: str, timetoken: str) -> Operation[Counts]:
        """Return the counts of a message."""
        counts = yield from self.get_many(channel, [timetoken])
        return counts[timetoken]

    def get_many(
        self,
        channel: str,
        timetokens: Sequence[str],
    ) -> Operation[dict[str, Counts]]:
        """Return the counts of messages, in one round trip."""
        reads = [("HGETALL", self.keys.counts(channel, each)) for each in timetokens]
        schema, *hashes = yield Request([self.schema, *reads])
        self.expect_schema(schema)
        counts = map(read_counts, hashes)
        return dict(zip(timetokens, counts, strict=True))

    def recent(self, channel: str, limit: int) -> Operation[tuple[RecentMessage, ...]]:
        """Return the messages whose reactions changed last, newest first."""
        key = self.keys.messages(channel)
        read = ("ZREVRANGE", key, 0, limit - 1, "WITHSCORES")
        schema, reply = yield Request([self.schema, read])
        self.expect_schema(schema)
        return tuple(RecentMessage(each, int(float(score))) for each, score in pairs(reply))

    def channels(self) -> Operation[frozenset[str]]:
        """Return every channel ever seen."""
        found: set[str] = set()
        cursor = ""
        while cursor != "0":
            scan = ("SSCAN", self.keys.channels, cursor or "0", "COUNT", SCAN)
            schema, reply = yield Request([self.schema, scan])
            self.expect_schema(schema)
            cursor = text(check_reply(reply)[0])
            found.update(texts(reply[1]))
        return frozenset(found)

    def in_doubt(self, channels: Sequence[str]) -> Operation[frozenset[str]]:
        """Return those of the channels that may have missed events."""
        reads = [("EXISTS", self.keys.owed(channel)) for channel in channels]
        schema, *marks = yield Request([self.schema, *reads])
        self.expect_schema(schema)
        return frozenset(compress(channels, map(check_reply, marks)))

    def heartbeat_age(self) -> Operation[float | None]:
        """Return how many seconds ago a worker's last heartbeat was."""
        life = ("PTTL", self.keys.subscriptions)
        schema, left = yield Request([self.schema, life])
        self.expect_schema(schema)
        if is_forbidden(left):
            raise NotPermittedError(
                f"{translated(left)} Grant ~{self.keys.subscriptions} and +pttl to that user."
            )
        return heartbeat_age(check_reply(left))

    @property
    def schema(self) -> Command:
        """Every operation asks for it.

        An empty answer must not be a mistake in an address.
        """
        return "HGET", self.keys.meta, "schema"

    def expect_schema(self, reply: Any) -> None:
        """Check what Redis has as the schema.

        Raises:
            NotTheseTalliesError: there is none, or another one.
        """
        namespace = self.keys.namespace
        if isinstance(reply, ResponseError) and str(reply).startswith("WRONGTYPE"):
            reply = None
        schema = check_reply(reply)
        if schema is None:
            raise NotTheseTalliesError(
                f"{self.where} holds no tallies in the namespace {namespace!r}: "
                f"{self.keys.meta} is missing, or has no schema. Check the address, the number of "
                "the database and TALLY_NAMESPACE. The worker writes that key when it starts."
            )
        if text(schema) != SCHEMA:
            raise NotTheseTalliesError(
                f"The tallies of {namespace!r} in {self.where} have schema {text(schema)}, and "
                f"this version of reaction-tally reads schema {SCHEMA}. Update reaction-tally, or "
                "whatever is older: client and worker must have one schema."
            )
        self.is_known = True


def read_counts(reply: Any) -> Counts:
    """Return type → value → count of the fields of a ``counts`` hash.

    Raises:
        TallyReadError: the reply is an error.
    """
    counts: Counts = {}
    for field, count in pairs(reply):
        type, value = tally_parts(field)
        counts.setdefault(type, {})[value] = int(count)
    return counts
