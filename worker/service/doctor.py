"""Is everything there that a worker needs?"""

import asyncio
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Collection,
    Iterator,
    Mapping,
    Sequence,
)
from dataclasses import dataclass
from functools import partial
from operator import attrgetter
from typing import Final

from worker.domain.duration import span
from worker.domain.position import HANDSHAKE, milliseconds
from worker.errors import (
    ConfigurationError,
    ExitCode,
    FatalError,
    ForbiddenError,
    PubNubError,
    TallyError,
)
from worker.reconciliation.schedule import Load, Schedule
from worker.source.access_token import TokenEnd
from worker.source.client import Client
from worker.source.names import Names
from worker.source.reachability import LONGEST_WAIT_SECONDS
from worker.store.heartbeat import no_worker
from worker.store.tables import Tables

MAX_SKEW_SECONDS: Final = 30
LOOK_SECONDS: Final = 6.0
"""All checks end by then, whatever hangs.

The start and the end of a process take their time, too, and ten seconds are promised.
"""
RECENT_SECONDS: Final = 360
"""Whoever follows a name has said so since: a worker each minute, one of 0.2 with each poll."""
AGAIN_SECONDS: Final = 2.0
"""A worker that starts just now says so then."""
LISTED: Final = 10
"""So many refused names are named."""


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check; if it fails, what to do."""

    subject: str
    text: str
    exit_code: ExitCode = ExitCode.DONE
    verdict: str = "ok"
    """``note``: nothing fails, but a person may have meant something else."""


HANGING: Final = {
    "PubNub": ExitCode.PUBNUB_REFUSED,
    "Redis": ExitCode.REDIS_UNFIT,
    "Rounds": ExitCode.REDIS_UNFIT,
    "Following": ExitCode.REDIS_UNFIT,
    "TALLY_HTTP": ExitCode.USAGE,
}
"""Subject → the exit code if its check does not end."""


class Note(str):
    """A sentence with which nothing fails, but a person may want something else."""

    __slots__ = ()


Check = Callable[[], Awaitable[str]]
"""Returns a sentence, or a note; raises if something is wrong."""


class Deadline:
    """The moment by which all checks end."""

    def __init__(self, seconds: float = LOOK_SECONDS) -> None:
        self._seconds = seconds
        self._loop = asyncio.get_running_loop()
        self._at = self._loop.time() + seconds

    @property
    def is_over(self) -> bool:
        """Whether no check has time left."""
        return self._loop.time() >= self._at

    async def look(
        self,
        subject: str,
        check: Check,
        if_silent: str = "",
    ) -> Finding:
        """Return the sentence of the check, or of its error."""
        try:
            async with asyncio.timeout_at(self._at):
                sentence = await check()
                verdict = "note" if isinstance(sentence, Note) else "ok"
                return Finding(subject, sentence, verdict=verdict)
        except TallyError as error:
            return Finding(subject, str(error), error.exit_code)
        except TimeoutError:
            text = f"no answer in {self._seconds:g} s. {if_silent}".rstrip()
            return Finding(subject, text, HANGING[subject])


async def examine_pubnub(
    client: Client,
    followed: Names,
    size: int,
    now: Callable[[], float],
    deadline: Deadline,
) -> AsyncIterator[Finding]:
    """Send PubNub each kind of request that a worker sends."""
    if_silent = client.route.if_silent
    check_clock = partial(_check_clock, client, now)
    clock = await deadline.look("PubNub", check_clock, if_silent)
    yield clock
    if clock.exit_code is not ExitCode.DONE or not followed:
        return
    for right, check in _requests(client, followed, size):
        allowed = partial(_allowed, check, right, followed)
        yield await deadline.look("PubNub", allowed, if_silent)
        if deadline.is_over:
            return


async def examine_token(
    end: TokenEnd,
    now: float,
    deadline: Deadline,
) -> Finding:
    """Say when the access token ends."""

    async def check() -> str:
        sentence = end.sentence(now)
        if end.has_come(now):
            raise PubNubError(
                f"The access token {sentence}. "
                "Make a new one, and write it in PUBNUB_AUTH_TOKEN "
                "or in the file of PUBNUB_AUTH_TOKEN_FILE."
            )
        return sentence if end.is_far(now) else Note(sentence)

    return await deadline.look("Token", check)


async def examine_rounds(
    tables: Tables,
    configured: Collection[str],
    schedule: Schedule,
    deadline: Deadline,
) -> Finding:
    """Say how long rounds over all channels take: those ever seen, and the configured ones."""

    async def check() -> str:
        load = await _read_load(tables, configured, schedule)
        cost = (
            f"{load.channels} channels, {load.active} of them active lately, "
            f"take {load.minutes_an_hour:.0f} minutes of each hour at least, "
            f"at {schedule.rate:g} requests a second. "
            f"One look at everything of all of them takes {load.hours_of_all:.1f} hours."
        )
        if load.problem:
            raise ConfigurationError(f"{cost} {load.problem}")
        return cost

    return await deadline.look("Rounds", check)


async def examine_following(
    tables: Tables,
    names: Names,
    deadline: Deadline,
) -> list[Finding]:
    """Say if no worker runs, or which names none follows, or for which PubNub is silent."""

    async def check() -> str:
        sentence = no_worker(await tables.cursors.heartbeat_age())
        if sentence:
            # No failure: a doctor is asked before each start, too.
            return Note(sentence)
        followed = await tables.cursors.names_followed(RECENT_SECONDS)
        if not followed.keys() >= set(names.all):
            await asyncio.sleep(AGAIN_SECONDS)
            followed = await tables.cursors.names_followed(RECENT_SECONDS)
        left = [name for name in names.all if name not in followed]
        if left:
            raise FatalError(_unfollowed(left, names))
        return _unanswered({name: followed[name] for name in names.all})

    found = await deadline.look("Following", check)
    return [found] if found.text else []


def _unanswered(ages: Mapping[str, float]) -> str:
    """Return which names have old cursors; nothing if none has."""
    old = {name: age for name, age in ages.items() if age > LONGEST_WAIT_SECONDS}
    if not old:
        return ""
    name = max(old, key=old.__getitem__)
    return Note(
        f"A worker follows {len(old)} of the {len(ages)} configured names, such as {name!r}, "
        f"but its last answer from PubNub came {span(old[name])} ago. "
        "Unless it has just started, nothing is counted there: look at its /readyz and its log."
    )


def _unfollowed(left: Sequence[str], names: Names) -> str:
    minutes = RECENT_SECONDS // 60
    return (
        f"{len(left)} of the {len(names.all)} configured names, "
        f"such as {left[0]!r}, had no worker in the last {minutes} minutes, "
        "though workers run: nothing is counted there. "
        "Is each shard (TALLY_SHARD) running, "
        "has each worker the same list, "
        "and does PubNub answer it?"
    )


async def _read_load(
    tables: Tables,
    configured: Collection[str],
    schedule: Schedule,
) -> Load:
    # Before the first start none of the configured ones was seen.
    channels = (await tables.channels.all()).union(configured)
    now = await tables.server.now()
    load = Load(schedule)
    async for _, proof in tables.proofs.scan(channels):
        load.add(proof, now)
    return load


async def _check_clock(client: Client, now: Callable[[], float]) -> str:
    skew = now() - milliseconds(await client.time()) / 1000
    if abs(skew) <= MAX_SKEW_SECONDS:
        return "answers"
    direction = "ahead" if skew > 0 else "behind"
    return Note(
        f"answers; this machine's clock is {abs(skew):.0f} s {direction}. Set it right: "
        "PubNub refuses signed requests that are a minute off, and the end of a token shows wrong."
    )


def _requests(
    client: Client,
    followed: Names,
    size: int,
) -> Iterator[tuple[str, Check]]:
    yield "read", partial(_subscribe, client, followed, size)
    for group in followed.groups:
        yield "read and manage", partial(_read_group, client, group)
    if followed.channels:
        yield "read", partial(_read_history, client, followed.channels[0])


async def _read_group(client: Client, group: str) -> str:
    channels = await client.group_channels(group)
    if not channels:
        return Note(
            f"group {group!r} has no channels now. Is its name right? "
            "PubNub says the same of a group that does not exist."
        )
    return f"lets us list group {group!r}: {len(channels)} channels"


async def _read_history(client: Client, channel: str) -> str:
    await client.message_actions(channel, limit=1)
    return f"lets us read the actions of {channel!r}"


async def _subscribe(client: Client, followed: Names, size: int) -> str:
    refusals: list[ForbiddenError] = []
    # In parts, as a worker does: PubNub bounds the length of a request.
    for part in followed.split(size):
        names = (*part.channels, *part.wildcards)
        try:
            await client.subscribe(names, part.groups, HANDSHAKE)
        except ForbiddenError as error:
            refusals.append(error)
    if refusals:
        channels = map(attrgetter("channels"), refusals)
        groups = map(attrgetter("groups"), refusals)
        raise ForbiddenError(
            str(refusals[0]),
            channels=frozenset().union(*channels),
            groups=frozenset().union(*groups),
            has_advice=refusals[0].has_advice,
        )
    return f"lets us subscribe to {len(followed.all)} names"


async def _allowed(check: Check, right: str, followed: Names) -> str:
    # If PubNub refuses it, the error says what to grant.
    try:
        return await check()
    except ForbiddenError as error:
        if error.has_advice:
            raise
        raise PubNubError(
            f"{error}{_refused(error, followed)} "
            f"Grant {right!r} to this worker's token for every name in "
            "TALLY_CHANNELS and TALLY_CHANNEL_GROUPS, or set PUBNUB_AUTH_TOKEN.",
            status=403,
        ) from error


def _refused(error: ForbiddenError, followed: Names) -> str:
    # Only our own names are named: the answer may hold any text.
    groups = {f":{group}" for group in error.groups}
    named = error.channels | groups
    refused = list(filter(named.__contains__, followed.all))
    if not refused:
        return ""
    listed = ", ".join(map(repr, refused[:LISTED]))
    ending = " and more" if len(refused) > LISTED else ""
    return f" Refused: {listed}{ending}."
