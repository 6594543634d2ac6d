"""The commands: each opens what it needs, does its work, and closes it."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

import structlog

from worker import __version__
from worker.applying.retry import ProgressWatcher
from worker.domain.position import Range
from worker.errors import ConfigurationError, ExitCode, TallyError
from worker.reconciliation.reconcile import ReconcileOptions, ReconcileReport
from worker.reconciliation.verify import Sample, Verifier, VerifyReport
from worker.service.doctor import Finding, examine_pubnub, examine_redis, look
from worker.service.health import Health
from worker.service.lifecycle import EarlySignals
from worker.service.parts import (
    Parts,
    build_backfiller,
    build_comparison,
    build_reconciler,
    configured_names,
    counted_types,
    followed_names,
    keyset,
    open_parts,
)
from worker.service.worker import compose
from worker.settings import Settings
from worker.source import names
from worker.source.client import Client
from worker.source.live import LONGEST_ANSWER_SECONDS
from worker.source.names import Names
from worker.store.keys import Keys
from worker.store.opened import opened_redis
from worker.store.preflight import Claim
from worker.telemetry.http import listening

COMMAND_TRIES: Final = 6
"""Failures in a row after which a command gives up on PubNub; some ten seconds."""

log = structlog.get_logger(__name__)


async def run_worker(settings: Settings, *, allow_eviction: bool = False) -> ExitCode:
    """Follow the configured names until a signal; DONE if all that was read is applied.

    Raises:
        TallyError: the worker cannot start, or cannot go on.
    """
    early = EarlySignals()
    keyset(settings)
    counted_types(settings)
    followed = followed_names(settings)
    _announce(settings, followed)
    try:
        code = await _serve(settings, followed, early, allow_eviction=allow_eviction)
    except TallyError as error:
        log.error("worker_fails", reason=str(error), exit_code=int(error.exit_code))  # noqa: TRY400 - a sentence, no slip
        raise
    except asyncio.CancelledError:
        if not early.has_stopped:
            raise
        code = ExitCode.DONE  # nothing was read yet
    except Exception:  # a fault of ours in one task: half a worker would count on in silence
        log.exception("worker_dies")
        code = ExitCode.FAILED
    log.info("worker_stops", exit_code=int(code))
    return code


def _announce(settings: Settings, followed: Names) -> None:
    log.info("worker_starts", version=__version__, names=len(followed.all))
    seconds = settings.catchup_seconds
    if seconds < LONGEST_ANSWER_SECONDS:
        log.warning("catchup_is_short", seconds=seconds, least_seconds=LONGEST_ANSWER_SECONDS)


async def _serve(
    settings: Settings, followed: Names, early: EarlySignals, *, allow_eviction: bool
) -> ExitCode:
    async with open_parts(settings, allow_eviction=allow_eviction) as parts:
        worker = await compose(parts, followed)
        early.hand_over(worker.service)
        async with _health_pages(settings, worker.health):
            return await worker.service.run()


@asynccontextmanager
async def _health_pages(settings: Settings, health: Health) -> AsyncIterator[None]:
    """Serve the pages about the worker's health, if an address is set.

    Raises:
        ConfigurationError: nobody can listen at the address that was set.
            At the default address that is only logged.
    """
    address = settings.http
    if address is None:
        yield
        return
    async with AsyncExitStack() as stack:
        try:
            server = listening(address.host, address.port, health.pages)
            host, port = await stack.enter_async_context(server)
        except OSError as error:
            reason = (
                f"TALLY_HTTP: nobody can listen at {address}: {error.strerror}. "
                "Set another address, or off."
            )
            if settings.is_set("TALLY_HTTP"):
                raise ConfigurationError(reason) from None
            log.warning("http_off", reason=reason)
        else:
            log.info("http_listens", host=host, port=port)
        yield


async def run_backfill(
    settings: Settings,
    channels: Sequence[str],
    wanted: Range,
    watcher: ProgressWatcher | None,
    *,
    allow_eviction: bool = False,
) -> dict[str, int]:
    """Replay these channels, or all known ones; return how many actions were read of each."""
    check_channels(channels)
    async with open_parts(settings, allow_eviction=allow_eviction) as parts:
        asked = await _asked_channels(parts, channels, "backfill")
        return await build_backfiller(parts, COMMAND_TRIES, watcher).run(asked, wanted)


async def run_reconcile(
    settings: Settings,
    channels: Sequence[str],
    wanted: Range,
    options: ReconcileOptions,
    watcher: ProgressWatcher | None,
    *,
    allow_eviction: bool = False,
) -> list[ReconcileReport]:
    """Reconcile these channels, or all known ones."""
    check_channels(channels)
    only_reads = options.dry_run
    async with open_parts(settings, allow_eviction=allow_eviction, only_reads=only_reads) as parts:
        asked = await _asked_channels(parts, channels, "reconcile")
        return await build_reconciler(parts, COMMAND_TRIES, watcher).run(asked, wanted, options)


async def run_verify(
    settings: Settings,
    channels: Sequence[str],
    part: float,
    watcher: ProgressWatcher | None,
) -> VerifyReport:
    """Compare these channels, or all known ones, with PubNub and with themselves; write nothing.

    ``part`` is how much of each channel's past is compared, from 0 to 1.
    """
    check_channels(channels)
    async with open_parts(settings, allow_eviction=True, only_reads=True) as parts:
        asked = await _asked_channels(parts, channels, "verify")
        comparison = build_comparison(parts, COMMAND_TRIES, watcher)
        sample = Sample(part, random.Random())  # noqa: S311 - a sample, not a secret
        seconds = settings.settle_seconds
        verifier = Verifier(comparison, parts.entries, parts.audit, seconds, sample)
        return await verifier.run(asked)


def check_channels(channels: Sequence[str]) -> None:
    """Refuse a name that cannot be a channel's, before anything is opened or claimed.

    Raises:
        ConfigurationError: it cannot.
    """
    for channel in channels:
        names.channel(channel)


async def _asked_channels(parts: Parts, channels: Sequence[str], verb: str) -> list[str]:
    """Return the channels a command was given, or all configured and all ever seen.

    Raises:
        ConfigurationError: there are none.
    """
    asked = list(channels) or sorted(await known_channels(parts))
    if not asked:
        raise ConfigurationError(f"No channel to {verb}: name one, or set TALLY_CHANNELS.")
    return asked


async def known_channels(parts: Parts) -> set[str]:
    """Return all configured channels, members of groups too, and all channels ever seen."""
    followed = configured_names(parts.settings)
    known = set(followed.channels) | await parts.probe_tables.channels.all()
    for group in followed.groups:
        known.update(await parts.client.group_channels(group))
    return known


@dataclass(slots=True)
class _Usable:
    """What the doctor can examine further, even where another setting is wrong."""

    claim: Claim | None = None
    client: Client | None = None
    followed: Names = field(default_factory=Names)


async def run_doctor(settings: Settings, *, allow_eviction: bool = False) -> AsyncIterator[Finding]:
    """Yield what is found, part by part: configuration, PubNub, Redis."""
    usable = _Usable()
    async with AsyncExitStack() as stack:

        async def configuration() -> str:
            who, counted = keyset(settings), counted_types(settings)
            usable.claim = Claim(who.subscribe_key, str(counted))
            usable.client = await stack.enter_async_context(Client(who))
            usable.followed = followed_names(settings)
            return f"complete; counts {counted}"

        yield await look("Configuration", configuration)
        if usable.client:
            size = settings.channels_per_subscription
            async for finding in examine_pubnub(usable.client, usable.followed, size, time.time):
                yield finding
    try:
        async with opened_redis(settings.redis_url) as redis:
            keys = Keys(settings.namespace)
            for finding in await examine_redis(
                redis, keys, usable.claim, allow_eviction=allow_eviction
            ):
                yield finding
    except TallyError as error:
        yield Finding("Redis", str(error), error.exit_code)
