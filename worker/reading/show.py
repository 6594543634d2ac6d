"""One message: its tallies, who reacted, and since when."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final

from reaction_tally import Message, Reaction, Reactor
from worker.domain.position import Timetoken
from worker.source import names
from worker.store.reader import Tallies, opened_tallies

USERS_AT_ONCE: Final = 1_000
"""Users of one round trip."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownMessage:
    """A message, as readers see it."""

    channel: str
    message: Message
    is_known: bool
    """Whether a worker has ever seen the channel."""
    in_doubt: bool
    """Whether events may have been missed."""
    position: str
    """The id of the journal's last entry."""

    def by_type(self) -> list[Reaction]:
        """Return the reactions by type; of each type the most frequent first."""
        return sorted(self.message.reactions, key=_rank)


async def read_message(
    redis_url: str | None,
    namespace: str,
    channel: str,
    message_timetoken: Timetoken,
    *,
    me: str | None = None,
    users: int = 1,
) -> ShownMessage:
    """Return one message: what ``me`` chose, and the first ``users`` of each reaction.

    Without a user it is not known when somebody reacted first.

    Raises:
        ConfigurationError: PubNub would refuse the channel's name.
        RedisUnavailableError: Redis does not answer.
        RedisUnfitError: there are no tallies, or they have another schema.
        DamagedKeyError: another program wrote a key that is read.
    """
    name = names.channel(channel)
    async with opened_tallies(redis_url, namespace) as tallies:
        messages = [message_timetoken]
        async with tallies.reading(name, messages):
            page = await tallies.reader.page(name, messages, me=me, names=users)
        is_known = await tallies.is_known(name)
    message = page.messages[message_timetoken]
    return ShownMessage(
        channel=name,
        message=message,
        is_known=is_known or bool(message.reactions),
        in_doubt=page.in_doubt,
        position=page.position,
    )


@dataclass(frozen=True, slots=True)
class Chooser:
    """A user who chose a value, and when."""

    type: str
    user: str
    at: Timetoken


@dataclass(frozen=True, slots=True)
class Choosers:
    """Who chose a value on a message: by type, and then oldest first."""

    users: tuple[Chooser, ...]
    is_known: bool
    """Whether a worker has ever seen the channel."""


async def read_choosers(
    redis_url: str | None,
    namespace: str,
    channel: str,
    message_timetoken: Timetoken,
    value: str,
) -> Choosers:
    """Return every user who chose a value, of whatever type.

    Raises:
        ConfigurationError: PubNub would refuse the channel's name.
        RedisUnavailableError: Redis does not answer.
        RedisUnfitError: there are no tallies, or they have another schema.
        DamagedKeyError: another program wrote a key that is read.
    """
    name = names.channel(channel)
    users: list[Chooser] = []
    async with opened_tallies(redis_url, namespace) as tallies:
        async with tallies.reading(name, [message_timetoken]):
            counts = await tallies.reader.get(name, message_timetoken)
            for type in sorted(counts):
                reactors = _reactors(tallies, name, message_timetoken, type, value)
                users += [Chooser(type, each.user, each.at) async for each in reactors]
        is_known = bool(counts) or await tallies.is_known(name)
    return Choosers(tuple(users), is_known)


async def _reactors(
    tallies: Tallies,
    channel: str,
    message: Timetoken,
    type: str,
    value: str,
) -> AsyncIterator[Reactor]:
    """Yield the users of one tally, page by page."""
    after: str | None = ""
    while after is not None:
        page = await tallies.reader.who(
            channel,
            message,
            type,
            value,
            limit=USERS_AT_ONCE,
            after=after or None,
        )
        for reactor in page.reactors:
            yield reactor
        after = page.after


def _rank(reaction: Reaction) -> tuple[str, int, str]:
    return reaction.type, -reaction.count, reaction.value
