"""Does each count equal the number of live entries under it?"""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import starmap
from typing import Final

from reaction_tally.keys import RANKED_ABOVE, WHO_EPOCH, read_action_field, tally_of
from worker.domain.position import Timetoken
from worker.store.batch import batched
from worker.store.damage import find_damage, types_of_channel
from worker.store.entries import is_readable
from worker.store.redis_errors import redis_errors
from worker.store.servers import pages_of_keys
from worker.store.table import Table

MESSAGES_AT_ONCE: Final = 20
"""Messages of one round trip."""
NOT_INDEXED: Final = "not in the index of messages"
WRONG_USERS: Final = "its who key has other users: delete that key, and a reconcile writes it anew"


@dataclass(frozen=True, slots=True, order=True)
class Inconsistency:
    """A tally that differs from its entries."""

    channel: str
    message_timetoken: Timetoken
    """Empty for the whole channel."""
    field: str
    """The hash's field; empty for the whole message."""
    problem: str


class Audit(Table):
    """Compares counts, actions and index of messages; never writes."""

    async def channels(self, channels: Collection[str]) -> list[Inconsistency]:
        """Return every inconsistency of these channels, sorted.

        Every key of Redis is looked at once.
        """
        inconsistencies: set[Inconsistency] = set()
        wanted = frozenset(channels)
        async for keys in pages_of_keys(self._redis, self._keys.pattern, "hash"):
            read = set(map(self._keys.read_message, keys))
            messages = sorted(message for message in read if message and message[0] in wanted)
            for batch in batched(messages, MESSAGES_AT_ONCE):
                inconsistencies.update(await self._check(batch))
        return sorted(inconsistencies)

    async def unindexed(self, channels: Collection[str]) -> dict[str, set[Timetoken]]:
        """Return the messages that Redis holds and the index lacks.

        Channel → messages. Every key of Redis is looked at once.
        """
        unindexed: dict[str, set[Timetoken]] = {}
        for item in await self.channels(channels):
            if item.problem == NOT_INDEXED:
                unindexed.setdefault(item.channel, set()).add(item.message_timetoken)
        return unindexed

    async def _check(
        self,
        messages: Sequence[tuple[str, Timetoken]],
    ) -> list[Inconsistency]:
        """Return every inconsistency of some messages, each with its channel."""
        # One transaction: no other writer comes between counts and actions.
        pipe = self._redis.pipeline(transaction=True)
        for channel, message in messages:
            pipe.hgetall(self._keys.counts(channel, message))
            pipe.hgetall(self._keys.actions(channel, message))
            pipe.zscore(self._keys.messages(channel), message)
        with redis_errors():
            answers = await pipe.execute(raise_on_error=False)
        found: list[Inconsistency] = []
        for (channel, message), triple in zip(messages, batched(answers, 3), strict=True):
            refusals = list(filter(_is_refusal, triple))
            if refusals:
                found.append(await self._damage(channel, message, str(refusals[0])))
                continue
            of_message = partial(Inconsistency, channel, message)
            found += starmap(of_message, _problems(*triple))
            counts, actions, _ = triple
            if len(actions) > RANKED_ABOVE:
                found += await self._check_users(channel, message, counts)
        return found

    async def _check_users(
        self,
        channel: str,
        message: Timetoken,
        tallies: Collection[str],
    ) -> list[Inconsistency]:
        """Return tallies whose who key has other users than the actions.

        A key of another size is no inconsistency: readers see it, and read the actions.
        An update of the worker or an eviction leaves such keys until the next look.
        """
        pipe = self._redis.pipeline(transaction=True)
        pipe.hgetall(self._keys.actions(channel, message))
        for tally in tallies:
            pipe.zrange(self._keys.who(channel, message, tally), 0, -1, withscores=True)
        with redis_errors():
            actions, *rankings = await pipe.execute(raise_on_error=False)
        users = {} if isinstance(actions, Exception) else _scores(actions)
        return [
            Inconsistency(channel, message, tally, WRONG_USERS)
            for tally, ranking in zip(tallies, rankings, strict=True)
            if _misleads(ranking, users.get(tally, {}))
        ]

    async def _damage(
        self,
        channel: str,
        message: Timetoken,
        refusal: str,
    ) -> Inconsistency:
        """Return which key of the channel or the message another program wrote."""
        types = types_of_channel(self._keys, channel, [message])
        with redis_errors():
            damage = await find_damage(self._redis, types)
        if not damage:
            return Inconsistency(channel, message, "", refusal)
        key, reason = damage
        subject = message if key in self._keys.message(channel, message) else ""
        return Inconsistency(channel, subject, "", reason.removeprefix("Redis's "))


def live_entries(actions: Mapping[str, Timetoken]) -> tuple[Counter[str], list[str]]:
    """Return the number of live entries of each tally, and stray fields."""
    live: Counter[str] = Counter()
    strays: list[str] = []
    for field, timetoken in actions.items():
        if not is_readable(field, timetoken):
            strays.append(field)
            continue
        try:
            live[tally_of(field)] += 1
        except ValueError:
            strays.append(field)
    return live, strays


def _is_refusal(answer: object) -> bool:
    return isinstance(answer, Exception)


def _problems(
    counts: Mapping[str, str],
    actions: Mapping[str, Timetoken],
    score: float | None,
) -> Iterator[tuple[str, str]]:
    """Yield fields of a message that are wrong, and what is wrong with them."""
    live, strays = live_entries(actions)
    for field in counts.keys() | live.keys():
        count, entries = counts.get(field), live[field]
        if count is None:
            yield field, f"no count, though {entries} are live"
        elif count != str(entries):
            yield field, f"the count is {count}, though {entries} are live"
        elif count == "0":
            yield field, "a count of zero"
    for stray in strays:
        yield stray, "a field of actions that cannot be read"
    if (counts or actions) and score is None:
        yield "", NOT_INDEXED


def _scores(actions: Mapping[str, Timetoken]) -> dict[str, dict[str, float]]:
    """Return tally → user → score in a who key."""
    scores: defaultdict[str, dict[str, float]] = defaultdict(dict)
    _, strays = live_entries(actions)
    for field in actions.keys() - strays:
        _, _, user = read_action_field(field)
        scores[tally_of(field)][user] = float(int(actions[field]) - WHO_EPOCH)
    return scores


def _misleads(ranking: Sequence[tuple[str, float]] | Exception, users: Mapping[str, float]) -> bool:
    """Tell whether readers would believe a who key that is wrong."""
    if isinstance(ranking, Exception):
        return False
    return len(ranking) == len(users) and dict(ranking) != users
