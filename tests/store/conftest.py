"""What the tests of the store share."""

import pytest
from redis.asyncio import Redis

from reaction_tally.keys import Keys
from worker.store.tables import Tables


@pytest.fixture
def tables(redis: Redis) -> Tables:
    """Return the tables of an empty namespace; their methods raise if Redis is away."""
    return Tables(redis, Keys())
