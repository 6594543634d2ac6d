"""``who`` is true to any history: reactions come and go between its pages."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final
from unittest.mock import patch

from hypothesis import given
from hypothesis import strategies as st
from redis import Redis

from reaction_tally import TallyReader, Who
from reaction_tally.keys import SCHEMA, Keys
from tests.client.reactions import BEGAN, Reactions, who_key
from tests.histories import CHANNEL, MESSAGE, steady
from tests.redis_server import RedisServer

KEYS: Final = Keys()
RANKED_ABOVE: Final = 3
"""Fewer than a worker's, so that short histories have ranked messages."""
TALLIES: Final = (("reaction", "👍"), ("re:act", "*a:"))
USERS: Final = ("*", "🎉", "ﬀ", "u:1", "", *(f"u{number}" for number in range(25)))

reacting = st.tuples(st.sampled_from(USERS), st.sampled_from(TALLIES))
crowds = st.lists(st.tuples(reacting, st.integers(0, 3)), max_size=60)
adding = st.tuples(st.just("add"), crowds)
removing = st.tuples(st.just("remove"), reacting)
losing = st.tuples(st.just("lose"), st.integers(0, 9))
paging = st.tuples(st.just("page"), st.sampled_from(TALLIES), st.integers(1, 3))
histories = st.lists(
    st.one_of(adding, removing, losing, paging, paging, paging), min_size=5, max_size=25
)


class Told:
    """A message whose history is told; pages of it are compared with the truth."""

    def __init__(self, redis: Redis, reader: TallyReader) -> None:
        self._redis: Any = redis
        self._reader = reader
        self._reactions = Reactions(RANKED_ABOVE)
        self._after: dict[tuple[str, str], str | None] = dict.fromkeys(TALLIES)

    def write(self) -> None:
        """Write the message as a worker does."""
        pipe = self._redis.pipeline(transaction=True)
        pipe.delete(*map(who_key, TALLIES))
        for command in self._reactions.commands():
            pipe.execute_command(*command)
        pipe.execute()

    def add(self, crowd: list[Any]) -> None:
        """Some react, many of them at one instant."""
        for (user, tally), place in crowd:
            self._reactions.add(user, str(BEGAN + place), tally)
        self.write()

    def remove(self, reaction: tuple[str, Any]) -> None:
        """Somebody takes a reaction back."""
        self._reactions.remove(*reaction)
        self.write()

    def lose(self, left: int) -> None:
        """The sorted sets lose users, until the next change."""
        for key in map(who_key, TALLIES):
            self._redis.zremrangebyrank(key, left, -1)

    def page(self, tally: tuple[str, str], limit: int) -> None:
        """Read the next page, and expect the truth."""
        after = self._after[tally]
        page = self._reader.who(CHANNEL, MESSAGE, *tally, limit=limit, after=after)
        assert page == self._truth(tally, limit, after)
        self._after[tally] = page.after

    def _truth(self, tally: tuple[str, str], limit: int, after: str | None) -> Who:
        users = self._reactions.who(tally)
        rest = users
        if after:
            at, _, user = after.partition(":")
            last = (at, user.encode())
            rest = [each for each in users if (each.at, each.user.encode()) > last]
        shown = tuple(rest[:limit])
        more = len(rest) > limit
        return Who(
            reactors=shown,
            total=len(users),
            after=f"{shown[-1].at}:{shown[-1].user}" if more else None,
        )


@contextmanager
def small_limits(redis: Any) -> Iterator[None]:
    """Let a step of HSCAN, and a page's ties, be few."""
    settings = ("hash-max-listpack-entries", "zset-max-listpack-entries")
    before = {name: redis.config_get(name)[name] for name in settings}
    for name in settings:
        redis.config_set(name, 0)
    try:
        with (
            patch("reaction_tally.who.RANKED_ABOVE", RANKED_ABOVE),
            patch("reaction_tally.who.TIES", 1),
            patch("reaction_tally.who.MORE_TIES", 2),
        ):
            yield
    finally:
        for name, value in before.items():
            redis.config_set(name, value)


@given(history=histories)
@steady
def test_pages_are_true_to_any_history(valkey: RedisServer, history: list[Any]) -> None:
    """Small, ranked, with sorted sets that are complete or not; with changes between pages."""
    with (
        Redis.from_url(valkey.url, decode_responses=True) as redis,
        TallyReader.from_url(valkey.url) as reader,
        small_limits(redis),
    ):
        redis.flushall()
        redis.hset(KEYS.meta, "schema", SCHEMA)
        message = Told(redis, reader)
        for step, *words in history:
            getattr(message, step)(*words)
