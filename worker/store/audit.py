"""Does each count equal the number of live entries under it?"""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from reaction_tally.keys import RANKED_ABOVE, WHO_EPOCH, read_action_field, tally_of
from worker.domain.position import Timetoken
from worker.store.answers import first_error, is_error
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
            messages = self._messages_of(keys, wanted)
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

    def _messages_of(
        self,
        keys: Iterable[str],
        wanted: Collection[str],
    ) -> Sequence[tuple[str, Timetoken]]:
        """Return the messages of the wanted channels whose keys these are."""
        read = set(map(self._keys.read_message, keys))
        return sorted(message for message in read if message and message[0] in wanted)

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
        for message_key, of_message in zip(messages, batched(answers, 3), strict=True):
            found += await self._check_message(*message_key, of_message)
        return found

    async def _check_message(
        self,
        channel: str,
        message: Timetoken,
        answers: Sequence[Any],
    ) -> list[Inconsistency]:
        """Return every inconsistency of a message; ``answers`` are counts, actions and score."""
        refusal = first_error(answers)
        if refusal:
            return [await self._damage(channel, message, str(refusal))]
        found = [Inconsistency(channel, message, *problem) for problem in _problems(*answers)]
        counts, actions, _ = answers
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
        if is_error(actions):
            return []
        users = _scores(actions)
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


def _problems(
    counts: Mapping[str, str],
    actions: Mapping[str, Timetoken],
    score: float | None,
) -> Iterator[tuple[str, str]]:
    """Yield fields of a message that are wrong, and what is wrong with them."""
    live, strays = live_entries(actions)
    for field in counts.keys() | live.keys():
        problem = _problem_of_count(counts.get(field), live[field])
        if problem:
            yield field, problem
    for stray in strays:
        yield stray, "a field of actions that cannot be read"
    if score is None and (counts or actions):
        yield "", NOT_INDEXED


def _problem_of_count(count: str | None, entries: int) -> str:
    """Say what is wrong with a count; an empty text if it is right."""
    if count is None:
        return f"no count, though {entries} are live"
    if count != str(entries):
        return f"the count is {count}, though {entries} are live"
    if count == "0":
        return "a count of zero"
    return ""


def _scores(actions: Mapping[str, Timetoken]) -> dict[str, dict[str, float]]:
    """Return tally → user → score in a who key."""
    scores: defaultdict[str, dict[str, float]] = defaultdict(dict)
    _, strays = live_entries(actions)
    for field in actions.keys() - strays:
        _, _, user = read_action_field(field)
        scores[tally_of(field)][user] = float(int(actions[field]) - WHO_EPOCH)
    return scores


def _misleads(ranking: Any, users: Mapping[str, float]) -> bool:
    """Tell whether readers would believe a who key that is wrong."""
    has_same_size = not is_error(ranking) and len(ranking) == len(users)
    return has_same_size and dict(ranking) != users
