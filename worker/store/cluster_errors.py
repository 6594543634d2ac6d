"""What only a Redis Cluster and Sentinels answer, in words.

These errors are transient, or what answers is no cluster.
"""

from collections.abc import Mapping
from typing import Final

from redis import exceptions

from reaction_tally.replies import by_kind

NO_SELECT: Final = "SELECT is not allowed in cluster mode"
NODE_OF_A_CLUSTER: Final = (
    "This is a node of a Redis Cluster, which has one database. "
    "Write redis+cluster://HOST:PORT, with some more nodes "
    "behind commas, and no number."
)
NO_CLUSTER: Final = (
    "What answers is no node of a Redis Cluster, and REDIS_URL "
    "is the address of one. "
    "Write redis://HOST:PORT for one server, "
    "redis+sentinel://HOST:PORT/SERVICE for Sentinels."
)


class NoPrimaryError(exceptions.ConnectionError):
    """No Sentinel names a primary that is up. The text says why, and what to do."""


def is_no_cluster(error: BaseException) -> bool:
    """Tell whether redis-py's client of a cluster met a server that is no node of a cluster."""
    cause = error.__cause__
    if not isinstance(cause, exceptions.RedisClusterException):
        return False
    return not isinstance(cause.__context__, exceptions.NoPermissionError)


def cause_of(error: exceptions.RedisClusterException) -> BaseException | None:
    """Return why redis-py's client of a cluster reaches no node; None if it reaches some."""
    cause = error.__cause__
    if isinstance(cause, exceptions.RedisClusterException):
        return cause.__context__
    return cause


def origin_of(error: BaseException | None) -> BaseException | None:
    """Return the error of a connection, also if it was one of a cluster's client."""
    if isinstance(error, exceptions.RedisClusterException):
        return cause_of(error)
    return error


def sentence_of(error: Exception, reason: str) -> str:
    """Return why several servers do not serve now; an empty text if it is something else."""
    words = by_kind(_WORDS, error, "")
    return words.format(reason=reason, text=error)


_WORDS: Final[Mapping[type[Exception], str]] = {
    NoPrimaryError: "{text}",
    # MOVED is a kind of it.
    exceptions.AskError: (
        "Another node of the Redis Cluster has this key (MOVED or "
        "ASK {reason}). "
        "While slots move, this passes. REDIS_URL must begin with "
        "redis+cluster://."
    ),
    exceptions.TryAgainError: "The Redis Cluster moves the keys of a slot now: {reason}",
    exceptions.MasterDownError: "Redis is a replica, and its primary is away: {reason}",
    exceptions.ClusterDownError: (
        "The Redis Cluster does not serve now ({reason}): "
        "a primary is away, and no replica has taken its place."
    ),
    exceptions.MaxConnectionsError: (
        "All connections that this program may open to Redis are in use: "
        "max_connections in REDIS_URL is how many."
    ),
    exceptions.ClusterError: (
        "The nodes of the Redis Cluster do not agree where a key is: {reason}"
    ),
    exceptions.RedisClusterException: (
        "The Redis Cluster does not serve every slot now: {reason} "
        "Are all its primaries up? "
        "redis-cli --cluster check HOST:PORT says which slots nobody has."
    ),
}
"""Error → sentence. The first kind that fits counts."""
