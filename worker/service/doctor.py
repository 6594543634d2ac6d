"""Is everything there that a worker needs: each as a line, with what to do."""

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

from worker.domain.position import HANDSHAKE, milliseconds
from worker.errors import ExitCode, ForbiddenError, PubNubError, TallyError
from worker.source.client import Client
from worker.source.names import Names
from worker.store.connection import RedisClient
from worker.store.keys import Keys
from worker.store.preflight import Claim, check_fitness, check_ownership

MAX_SKEW_SECONDS: Final = 30
LISTED: Final = 10
"""How many refused names are told."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at: ``exit_code`` is DONE where it is as it should be; ``text`` says what to do where not."""

    subject: str
    text: str
    exit_code: ExitCode = ExitCode.DONE


Check = Callable[[], Awaitable[str]]


async def look(subject: str, check: Check) -> Finding:
    """Return what the check says of itself, or what its error says."""
    try:
        return Finding(subject, await check())
    except TallyError as error:
        return Finding(subject, str(error), error.exit_code)


async def examine_pubnub(
    client: Client, followed: Names, channels_per_subscription: int, now: Callable[[], float]
) -> AsyncIterator[Finding]:
    """Ask PubNub for everything a worker will ask for; stop at the first sign that it does not answer."""

    async def clock() -> str:
        skew = now() - milliseconds(await client.time()) / 1000
        if abs(skew) > MAX_SKEW_SECONDS:
            return f"answers; this machine's clock is {abs(skew):.0f} s {'ahead' if skew > 0 else 'behind'}"
        return "answers"

    async def read_group(group: str) -> str:
        return f"lets us list group {group!r}: {len(await client.group_channels(group))} channels"

    async def read_history(channel: str) -> str:
        await client.message_actions(channel, limit=1)
        return f"lets us read the actions of {channel!r}"

    found = await look("PubNub", clock)
    yield found
    if found.exit_code is not ExitCode.DONE or not followed:
        return
    subscribe = partial(_subscribe, client, followed, channels_per_subscription)
    yield await look("PubNub", lambda: _allowed(subscribe, "read", followed))
    for group in followed.groups:
        read = partial(read_group, group)
        yield await look("PubNub", partial(_allowed, read, "read and manage", followed))
    if followed.channels:
        yield await look(
            "PubNub", lambda: _allowed(lambda: read_history(followed.channels[0]), "read", followed)
        )


async def examine_redis(
    redis: RedisClient, keys: Keys, claim: Claim | None, *, allow_eviction: bool
) -> list[Finding]:
    """Look whether Redis is fit, and the namespace ours or free; write nothing."""

    async def fit() -> str:
        found = await check_fitness(redis, allow_eviction=allow_eviction)
        return f"answers, version {found.version}, maxmemory-policy {found.policy}"

    async def ours() -> str:
        owner = await check_ownership(redis, keys, claim)
        return f"namespace {keys.namespace!r} is {'ours' if owner else 'free'}"

    first = await look("Redis", fit)
    return [first, await look("Redis", ours)] if first.exit_code is ExitCode.DONE else [first]


async def _subscribe(client: Client, followed: Names, channels_per_subscription: int) -> str:
    """Ask for all names, also where some are refused, so that those can be told together."""
    refusals: list[ForbiddenError] = []
    for part in followed.split(
        channels_per_subscription
    ):  # as a worker does: PubNub bounds a poll's length
        try:
            await client.subscribe((*part.channels, *part.wildcards), part.groups, HANDSHAKE)
        except ForbiddenError as error:
            refusals.append(error)
    if refusals:
        channels = frozenset(name for each in refusals for name in each.channels)
        groups = frozenset(name for each in refusals for name in each.groups)
        raise ForbiddenError(str(refusals[0]), channels=channels, groups=groups)
    return f"lets us subscribe to {len(followed.all)} names"


async def _allowed(ask: Callable[[], Awaitable[str]], right: str, followed: Names) -> str:
    try:
        return await ask()
    except ForbiddenError as error:
        named = error.channels | {f":{group}" for group in error.groups}
        refused = [
            name for name in followed.all if name in named
        ]  # whatever else it says is a stranger's word
        told = f" Refused: {', '.join(map(repr, refused[:LISTED]))}{' and more' if refused[LISTED:] else ''}."
        what = f"Grant {right!r} to this worker's token for every name in TALLY_CHANNELS and TALLY_CHANNEL_GROUPS"
        raise PubNubError(
            f"{error}{told if refused else ''} {what}, or set PUBNUB_AUTH_TOKEN.", status=403
        ) from error
