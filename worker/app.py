"""The only place that builds things: what is started, in which order, and how it stops."""

import asyncio
import os
import random
import signal
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import structlog

from worker import __version__, ingest
from worker import backfill as backfilling
from worker.apply import Applier
from worker.backfill import Backfill, Range, Watch
from worker.doctor import Finding, examine_pubnub, examine_redis, look
from worker.errors import ConfigurationError, ExitCode, TallyError, first_of
from worker.ingest import Subscription
from worker.repairs import Repairs
from worker.settings import Settings
from worker.source import names
from worker.source.client import Client, Keyset
from worker.source.history import History
from worker.source.live import Poller
from worker.source.names import Names
from worker.source.pace import Backoff, elapsed_clock
from worker.source.wire import Interest
from worker.store.budget import Budget
from worker.store.keys import Keys
from worker.store.marks import Marks
from worker.store.opened import opened_redis
from worker.store.preflight import Claim, check_fitness, check_namespace
from worker.store.store import Lives, Store
from worker.sweep import Sweep

COMMAND_TRIES: Final = 6
"""Failures in a row after which a command (not the service) gives up on PubNub; some ten seconds."""

log = structlog.get_logger(__name__)


def keyset(settings: Settings) -> Keyset:
    """Return what it takes to talk to PubNub.

    Raises:
        ConfigurationError: the subscribe key is missing.
    """
    if settings.subscribe_key is None:
        raise ConfigurationError(
            "PUBNUB_SUBSCRIBE_KEY is not set. Copy the keyset's subscribe key from PubNub's admin portal into the "
            "environment or into .env."
        )
    return Keyset(
        settings.subscribe_key,
        settings.user_id,
        settings.publish_key,
        settings.secret_key,
        settings.auth_token,
        settings.origin,
        settings.tls,
    )


def configured_names(settings: Settings) -> Names:
    """Return the names to follow.

    Raises:
        ConfigurationError: PubNub would refuse one of them.
    """
    return Names.of(settings.channels, settings.channel_groups)


def followed_names(settings: Settings) -> Names:
    """Return the names to follow, of which there must be one.

    Raises:
        ConfigurationError: there is none, or PubNub would refuse one of them.
    """
    followed = configured_names(settings)
    if not followed:
        raise ConfigurationError("Nothing to follow: set TALLY_CHANNELS or TALLY_CHANNEL_GROUPS.")
    return followed


def interest(settings: Settings) -> Interest:
    """Return which types are counted.

    Raises:
        ConfigurationError: none is.
    """
    chosen, ignored = frozenset(settings.types), frozenset(settings.ignored_types)
    if chosen and chosen <= ignored:
        raise ConfigurationError(
            f"Nothing would be counted: TALLY_IGNORED_TYPES ({','.join(sorted(ignored))}) has every type of "
            f"TALLY_TYPES ({','.join(sorted(chosen))}). Change one of them."
        )
    return Interest(chosen, ignored)


def lives(settings: Settings) -> Lives:
    """Return how long what is kept is kept."""
    retention_seconds = round(settings.retention_days * 86400)
    return Lives(settings.tombstone_seconds, settings.journal_seconds, retention_seconds)


@dataclass(frozen=True, slots=True)
class Parts:
    """What every command that writes is made of."""

    client: Client
    store: Store
    marks: Marks
    applier: Applier
    budget: Budget
    interest: Interest


@asynccontextmanager
async def opened(settings: Settings, *, allow_eviction: bool = False) -> AsyncIterator[Parts]:
    """Yield the parts, on a Redis that is fit and a namespace that is ours."""
    keys, who, counted = Keys(settings.namespace), keyset(settings), interest(settings)
    # The client first: what is wrong with the keys is found before a namespace is claimed for them.
    async with Client(who) as client, opened_redis(settings.redis_url) as redis:
        await check_fitness(redis, allow_eviction=allow_eviction)
        await check_namespace(redis, keys, Claim(who.subscribe_key, str(counted)))
        store = Store(redis, keys, lives(settings))
        marks = Marks(redis, keys)
        applier = Applier(store, marks, settings.settle_seconds, elapsed_clock)
        yield Parts(client, store, marks, applier, Budget(redis, keys, settings.history_rate), counted)


def build_backfill(parts: Parts, settings: Settings, tries: int | None, watch: Watch | None = None) -> Backfill:
    """Return a backfill that gives up after so many failures in a row, or never."""
    insist, budget = parts.applier.insist, parts.budget  # the budget is in Redis, which may be away
    terms = backfilling.Terms(
        parts.interest,
        new_backoff,
        lambda seconds: insist(lambda: budget.hold(seconds)),
        elapsed_clock,
        settings.settle_seconds,
        tries,
    )
    history = History(parts.client, lambda: insist(budget.take), elapsed_clock)
    return Backfill(history, parts.client.time, parts.applier, parts.marks, terms, watch)


def new_backoff() -> Backoff:
    """Return waits of their own jitter."""
    return Backoff(random.Random())  # noqa: S311 - jitter, not a secret


async def run(settings: Settings, *, allow_eviction: bool = False) -> ExitCode:
    """Follow everything configured until a signal; the exit code says whether all that was read is applied."""
    keyset(settings)
    interest(settings)
    followed = followed_names(settings)
    log.info("worker_starts", version=__version__, names=len(followed.all))
    async with opened(settings, allow_eviction=allow_eviction) as parts:
        repairs = Repairs(build_backfill(parts, settings, tries=None), parts.marks, parts.applier)
        terms = ingest.Terms(parts.interest, settings.catchup_seconds, elapsed_clock)
        subscriptions = [
            Subscription(
                part,
                Poller(parts.client, part, new_backoff(), elapsed_clock),
                parts.applier,
                parts.marks,
                terms,
                parts.client,
                repairs.request,
            )
            for part in followed.split(settings.channels_per_subscription)
        ]
        beside = [repairs.run]
        if settings.retention_days:
            beside.append(Sweep(parts.store, parts.marks, parts.applier).run)
        ended = await Service(subscriptions, beside, settings.drain_seconds).run()
    log.info("worker_stops", exit_code=int(ended))
    return ended


class Service:
    """What runs for long: subscriptions, which are drained at the end, and what runs beside them, which is cut off."""

    def __init__(
        self,
        subscriptions: Sequence[Subscription],
        beside: Sequence[Callable[[], Coroutine[Any, Any, None]]],
        drain_seconds: float,
    ) -> None:
        self._subscriptions = subscriptions
        self._beside = beside
        self._drain_seconds = drain_seconds
        self._asked = asyncio.Event()

    async def run(self) -> ExitCode:
        """Run until a signal asks to stop. A task that dies takes the service down with its error."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_signal, number)
        try:
            async with asyncio.TaskGroup() as group:
                following = [group.create_task(subscription.run()) for subscription in self._subscriptions]
                beside = [group.create_task(run()) for run in self._beside]
                await self._asked.wait()
                for task in beside:
                    task.cancel()
                return await self._drain(following)
        except ExceptionGroup as errors:
            raise first_of(errors) from None

    async def _drain(self, following: list[asyncio.Task[None]]) -> ExitCode:
        """Stop polling; apply what was polled; save the cursors."""
        for subscription in self._subscriptions:
            subscription.stop()
        _, late = await asyncio.wait(following, timeout=self._drain_seconds)
        for task in late:
            task.cancel()
        if late:
            log.error("drain_timed_out", subscriptions=len(late), seconds=self._drain_seconds)
            return ExitCode.FAILED
        return ExitCode.DONE

    def _on_signal(self, number: signal.Signals) -> None:
        """The first signal asks; the second kills. Nothing is lost by that: the cursor waits for what was applied."""
        if self._asked.is_set():
            os._exit(128 + number)
        log.info("stop_asked", signal=number.name)
        self._asked.set()


async def backfill(
    settings: Settings, channels: Sequence[str], wanted: Range, watch: Watch | None, *, allow_eviction: bool = False
) -> dict[str, int]:
    """Replay these channels, or all configured and all ever seen; return how many actions were read of each."""
    asked = [names.channel(channel) for channel in channels]
    async with opened(settings, allow_eviction=allow_eviction) as parts:
        asked = asked or sorted(await known_channels(parts, configured_names(settings)))
        if not asked:
            raise ConfigurationError("No channel to backfill: name one, or set TALLY_CHANNELS.")
        return await build_backfill(parts, settings, COMMAND_TRIES, watch).run(asked, wanted)


async def known_channels(parts: Parts, followed: Names) -> set[str]:
    """Return all channels configured (groups looked up) and all ever seen."""
    known = set(followed.channels) | await parts.marks.channels()
    for group in followed.groups:
        known.update(await parts.client.group_channels(group))
    return known


@dataclass(slots=True)
class Usable:
    """What of the configuration the doctor can look further with, even where another part of it is wrong."""

    claim: Claim | None = None
    client: Client | None = None
    followed: Names = field(default_factory=Names)


async def doctor(settings: Settings, *, allow_eviction: bool = False) -> AsyncIterator[Finding]:
    """Yield what is found, part by part: configuration, PubNub, Redis."""
    usable = Usable()
    async with AsyncExitStack() as stack:

        async def configuration() -> str:
            who, counted = keyset(settings), interest(settings)
            usable.claim = Claim(who.subscribe_key, str(counted))
            usable.client = await stack.enter_async_context(Client(who))
            usable.followed = followed_names(settings)
            return f"complete; counts {counted}"

        yield await look("Configuration", configuration)
        if usable.client:
            per_subscription = settings.channels_per_subscription
            async for finding in examine_pubnub(usable.client, usable.followed, per_subscription, time.time):
                yield finding
    try:
        async with opened_redis(settings.redis_url) as redis:
            keys = Keys(settings.namespace)
            for finding in await examine_redis(redis, keys, usable.claim, allow_eviction=allow_eviction):
                yield finding
    except TallyError as error:
        yield Finding("Redis", str(error), error.exit_code)
