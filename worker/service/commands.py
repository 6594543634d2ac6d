"""The commands: each opens its parts, and does its work."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from operator import attrgetter
from typing import Final

import structlog

from worker import __version__
from worker.applying.forgetting import (
    Forgotten,
    forget,
    unknown_channels,
)
from worker.applying.retry import ProgressWatcher
from worker.applying.slots import Urgency
from worker.domain.position import Range
from worker.domain.shards import Shard, Share
from worker.errors import (
    ConfigurationError,
    ExitCode,
    PubNubError,
    RedisUnavailableError,
    TallyError,
)
from worker.reconciliation.report import ReconcileOptions, ReconcileReport, VerifyReport
from worker.reconciliation.verify import Sample, Verifier, verify
from worker.service.configured import configured_names, counted_types, followed_names, keyset
from worker.service.file_limit import ensure_files
from worker.service.health import Health
from worker.service.http_sites import opened_sites
from worker.service.lifecycle import EarlySignals
from worker.service.page_address import why_not
from worker.service.parts import (
    Parts,
    build_backfiller,
    build_comparison,
    build_reconciler,
    open_parts,
)
from worker.service.worker import compose
from worker.settings import Settings, masked, sites_of
from worker.source import names
from worker.source.live import LONGEST_ANSWER_SECONDS
from worker.source.names import Names
from worker.telemetry.logging_bridge import raising_unhandled_errors
from worker.web.server import listening

COMMAND_TRIES: Final = 6
"""Failures in a row after which a command gives up."""
LEAVE_SECONDS: Final = 1.0
"""How long a stop waits for a Redis that hangs, after everything is drained or given up."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class BackfillReport:
    """What a backfill read."""

    counts: dict[str, int]
    """Channel → actions read."""
    unlisted: frozenset[str]
    """Channels of which PubNub lists nothing at all."""


@dataclass(frozen=True, slots=True)
class Withheld:
    """Channels that a command names, and that it must not make known.

    Nothing shows that such a name is right. Once known, a slip would stay
    for ever, and each round would ask PubNub for it.
    """

    unlisted: frozenset[str]
    """PubNub lists nothing of them."""
    failures: dict[str, PubNubError]
    """PubNub did not say whether it lists anything."""

    @property
    def channels(self) -> frozenset[str]:
        """All of them."""
        return self.unlisted.union(self.failures)

    @property
    def reports(self) -> list[ReconcileReport]:
        """The reports of a reconcile that leaves them alone."""
        empty = [ReconcileReport(channel=channel) for channel in self.unlisted]
        failed = [
            ReconcileReport(
                channel=channel,
                failure=str(error),
                exit_code=error.exit_code,
            )
            for channel, error in self.failures.items()
        ]
        return empty + failed


async def run_worker(settings: Settings, *, allow_eviction: bool = False) -> ExitCode:
    """Follow the configured names until a signal.

    Returns DONE if everything that was read is applied.
    """
    early = EarlySignals()
    try:
        code = await _serve(settings, early, allow_eviction=allow_eviction)
    except TallyError as error:
        code = error.exit_code
        log.error("worker_fails", reason=str(error), exit_code=int(code))  # noqa: TRY400 - the sentence is enough
        raise
    except asyncio.CancelledError:
        if not early.reason:
            log.exception("worker_dies", exit_code=int(ExitCode.FAILED))
            raise
        code = ExitCode.DONE  # nothing was read yet
    except Exception:  # a bug in one task; the others must not go on without it
        log.exception("worker_dies", exit_code=int(ExitCode.FAILED))
        return ExitCode.FAILED
    log.info("worker_stops", reason=early.reason, exit_code=int(code))
    return code


async def _serve(
    settings: Settings,
    early: EarlySignals,
    *,
    allow_eviction: bool,
) -> ExitCode:
    keyset(settings)
    counted_types(settings)
    followed = followed_names(settings).of_shard(settings.shard)
    size = settings.channels_per_subscription
    ensure_files(followed, size, has_sites=bool(sites_of(settings)))
    _announce(settings, followed)
    async with open_parts(settings, allow_eviction=allow_eviction) as parts:
        worker = await compose(parts, followed, allow_eviction=allow_eviction)
        early.hand_over(worker.service)
        async with _health_pages(parts, worker.health):
            code = await raising_unhandled_errors(worker.service.serve())
        early.reason = worker.service.reason
        await _end_heartbeats(parts)
    return code


async def _end_heartbeats(parts: Parts) -> None:
    # It only saves half a minute to who changes the settings. A stop must not wait for it.
    with suppress(RedisUnavailableError, TimeoutError):
        async with asyncio.timeout(LEAVE_SECONDS):
            await parts.probe_tables.cursors.end_heartbeats()


def _announce(settings: Settings, followed: Names) -> None:
    log.info(
        "worker_starts",
        version=__version__,
        namespace=settings.namespace,
        names=len(followed.all),
        shard=masked.show("TALLY_SHARD", settings),
        origin=settings.origin,
        redis=masked.show("REDIS_URL", settings) or "embedded Valkey",
    )
    if not followed:
        log.warning("nothing_to_follow", shard=str(settings.shard))
    seconds = settings.catchup_seconds
    if seconds < LONGEST_ANSWER_SECONDS:
        least = LONGEST_ANSWER_SECONDS
        log.warning("catchup_is_short", seconds=seconds, least_seconds=least)


@asynccontextmanager
async def _health_pages(parts: Parts, health: Health) -> AsyncIterator[None]:
    settings = parts.settings
    address = settings.http
    async with AsyncExitStack() as stack:
        sites = await stack.enter_async_context(opened_sites(parts, health))
        try:
            if address:
                server = listening(
                    address.host,
                    address.port,
                    health.pages,
                    sites=sites.sites,
                    streams=sites.streams,
                )
                host, port = await stack.enter_async_context(server)
                log.info("http_listens", host=host, port=port, sites=sites.prefixes)
        except OSError as error:
            reason = (
                f"TALLY_HTTP: cannot listen at {address}: {why_not(error)}. "
                "Set another address, or off."
            )
            # That the default address cannot be used is only logged.
            if sites_of(settings) or settings.is_set("TALLY_HTTP"):
                raise ConfigurationError(reason) from None
            log.warning("http_off", reason=reason)
        yield


async def run_backfill(
    settings: Settings,
    channels: Sequence[str],
    wanted: Range,
    watcher: ProgressWatcher | None,
    *,
    shard: Shard | None = None,
    allow_eviction: bool = False,
) -> BackfillReport:
    """Replay these channels, or all known ones of a shard."""
    _check_channels(channels)
    async with open_parts(settings, allow_eviction=allow_eviction) as parts:
        chosen = await _chosen_channels(parts, channels, "backfill", shard)
        withheld = await _withheld(parts, channels)
        backfiller = build_backfiller(parts, COMMAND_TRIES, watcher)
        counts = await backfiller.run(set(chosen) - withheld.channels, wanted)
        for failure in withheld.failures.values():
            raise failure
        counts |= dict.fromkeys(withheld.unlisted, 0)
        return BackfillReport(counts, withheld.unlisted)


async def run_reconcile(
    settings: Settings,
    channels: Sequence[str],
    wanted: Range,
    options: ReconcileOptions,
    watcher: ProgressWatcher | None,
    *,
    shard: Shard | None = None,
    allow_eviction: bool = False,
) -> list[ReconcileReport]:
    """Reconcile these channels, or all known ones of a shard."""
    _check_channels(channels)
    opened = open_parts(settings, allow_eviction=allow_eviction, only_reads=options.dry_run)
    async with opened as parts:
        chosen = await _chosen_channels(parts, channels, "reconcile", shard)
        withheld = await _withheld(parts, channels)
        reconciler = build_reconciler(parts, COMMAND_TRIES, watcher)
        others = set(chosen) - withheld.channels
        reports = await reconciler.run(others, wanted, options)
        reconciler.repaid.log()
        return sorted(reports + withheld.reports, key=attrgetter("channel"))


async def run_verify(
    settings: Settings,
    channels: Sequence[str],
    part: float,
    watcher: ProgressWatcher | None,
    shard: Shard | None = None,
    announce: Callable[[float], object] = float,
) -> VerifyReport:
    """Compare these channels, or all known ones of a shard; write nothing.

    ``part`` of each channel's past is compared, from 0 to 1.
    ``announce`` is told the seconds before each wait for a second pass.
    """
    _check_channels(channels)
    async with open_parts(settings, allow_eviction=True, only_reads=True) as parts:
        chosen = await _chosen_channels(parts, channels, "verify", shard)
        known = configured_names(settings).channels
        named = set(channels).difference(known)
        unknown = await unknown_channels(named, parts.probe_tables)

        async def pause() -> None:
            announce(settings.settle_seconds)
            await parts.slots.pause(settings.settle_seconds)

        verifier = Verifier(
            build_comparison(parts, COMMAND_TRIES, watcher),
            parts.entries,
            parts.audit,
            Sample(part, random.Random()),  # noqa: S311 - a sample, not a secret
            parts.slots,
            pause,
        )
        report = await verify(verifier, parts.probe_tables, chosen)
        report.unknown = sorted(unknown)
        report.are_named = bool(channels)
        return report


async def run_forget(settings: Settings, channels: Sequence[str]) -> list[Forgotten]:
    """Delete what is kept of these channels, one after the other."""
    # To delete is right on every Redis, also on one that evicts.
    async with open_parts(settings, allow_eviction=True) as parts:
        return [
            await forget(channel, parts.tables, parts.store) for channel in dict.fromkeys(channels)
        ]


def refuse_configured(settings: Settings, channels: Sequence[str]) -> None:
    """Make sure that no channel is followed by its own name.

    Raises:
        ConfigurationError: some are, or a name is none.
    """
    _check_channels(channels)
    followed = configured_names(settings).channels
    configured = sorted(set(channels) & set(followed))
    if configured:
        names = ", ".join(map(repr, configured))
        raise ConfigurationError(
            f"The settings name {names}: the worker would count this again at once. "
            "Take it out of TALLY_CHANNELS or TALLY_CHANNELS_FILE. "
            "Restart every worker, or send SIGHUP after a change of the file. "
            "Then type tally forget again."
        )


def _check_channels(channels: Sequence[str]) -> None:
    # Before anything is opened or claimed.
    for channel in channels:
        names.channel(channel)


async def _withheld(parts: Parts, channels: Collection[str]) -> Withheld:
    """Ask PubNub for each channel that only this command names, before anything is written.

    So a slip leaves nothing behind, whatever ends the command,
    and nothing is removed that a worker may have begun to follow.
    """
    configured = configured_names(parts.settings).channels
    named = set(channels).difference(configured)
    unknown = await unknown_channels(named, parts.tables)
    reader = build_comparison(parts, COMMAND_TRIES).reader
    unlisted: set[str] = set()
    failures: dict[str, PubNubError] = {}

    async def ask(channel: str) -> None:
        async with parts.slots.held(Urgency.ROUND):
            try:
                if not await reader.is_listed(channel):
                    unlisted.add(channel)
            except PubNubError as error:
                failures[channel] = error

    await asyncio.gather(*map(ask, sorted(unknown)))
    for channel in sorted(unlisted):
        log.warning("channel_not_kept", channel=channel)
    return Withheld(frozenset(unlisted), failures)


async def _chosen_channels(
    parts: Parts,
    channels: Sequence[str],
    verb: str,
    shard: Shard | None,
) -> list[str]:
    if channels:
        return list(channels)
    followed = configured_names(parts.settings)
    known = {*followed.channels, *await parts.probe_tables.channels.all()}
    for group in followed.groups:
        known.update(await parts.client.group_channels(group))
    if not known:
        raise ConfigurationError(f"No channel to {verb}: name one, or set TALLY_CHANNELS.")
    share = Share(shard)
    share.configure(followed.channels, followed.wildcards)
    return sorted(share.own(frozenset(known)))
