"""``tally doctor``: examines PubNub and Redis at the same time, and leaves nothing behind."""

import asyncio
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Final

from reaction_tally.errors import InvalidNameError
from reaction_tally.keys import Keys
from worker.errors import ConfigurationError, ExitCode, TallyError
from worker.service.configured import (
    claim_of,
    configured_names,
    counted_types,
    followed_names,
    keyset,
)
from worker.service.doctor import (
    LOOK_SECONDS,
    Deadline,
    Finding,
    examine_following,
    examine_pubnub,
    examine_rounds,
    examine_token,
)
from worker.service.file_limit import ensure_files
from worker.service.http_sites import describe_api, describe_board
from worker.service.page_address import check_address
from worker.service.parts import schedule
from worker.service.redis_examination import (
    examine_folder,
    examine_redis,
    examine_replicas,
)
from worker.settings import FIELDS, Settings, sites_of
from worker.settings.checks import everything_wrong
from worker.settings.name_list import doubtful_names
from worker.settings.problems import UnknownVariable
from worker.settings.shard import ShardPart, shard_part
from worker.source.client import Client
from worker.source.names import Names
from worker.store.connection import EMBEDDED_FOLDER, RedisClient, opened_redis
from worker.store.ownership import Claim
from worker.store.tables import Tables

CLOSE_SECONDS: Final = 0.5
OF_PUBNUB: Final = tuple(name for name in FIELDS if name.startswith("PUBNUB_"))
"""Who speaks to PubNub, and where it is."""
OF_REDIS: Final = ("REDIS_URL", "TALLY_NAMESPACE")
SHARED_RATE: Final = "All shards share TALLY_HISTORY_RATE, and what is said of rounds is of all"


async def run_doctor(
    settings: Settings,
    *,
    allow_eviction: bool = False,
) -> AsyncIterator[Finding]:
    """Yield findings about the configuration, PubNub and Redis. Nothing is left behind."""
    deadline = Deadline()
    # Redis is examined meanwhile: neither waits for the other one.
    examining = _examine_redis(settings, deadline, allow_eviction=allow_eviction)
    redis = asyncio.create_task(examining)
    try:
        async with AsyncExitStack() as stack:
            configuration = _Configuration(settings, stack)
            yield await deadline.look("Configuration", configuration.check)
            for finding in configuration.findings():
                yield finding
            if settings.report.is_known("TALLY_HTTP"):
                check = partial(check_address, settings)
                yield await deadline.look("TALLY_HTTP", check)
            for finding in _sites(settings):
                yield finding
            async for finding in configuration.examine_pubnub(deadline):
                yield finding
        for finding in await redis:
            yield finding
    finally:
        redis.cancel()
        await asyncio.wait([redis])


class _Configuration:
    """What the settings ask for, as far as they are right."""

    def __init__(self, settings: Settings, stack: AsyncExitStack) -> None:
        self._settings = settings
        self._stack = stack
        self._client: Client | None = None
        self._part: ShardPart | None = None
        self._followed = Names()
        self._notes: list[str] = []

    async def check(self) -> str:
        """Read the settings; return what is counted."""
        settings = self._settings
        if settings.report.is_known(*OF_PUBNUB):
            client = Client(keyset(settings))
            self._client = await self._stack.enter_async_context(client)
        counted = counted_types(settings)
        self._followed = followed_names(settings).of_shard(settings.shard)
        self._part = shard_part(settings)
        size = settings.channels_per_subscription
        ensure_files(self._followed, size, has_sites=bool(sites_of(settings)))
        if settings.report.problems:
            raise everything_wrong(settings)
        # A configuration that is wrong names them itself.
        self._notes.extend(map(str, settings.report.unknown))
        self._notes.extend(doubtful_names(self._followed.all))
        return f"complete; counts {counted}"

    def findings(self) -> Iterator[Finding]:
        """Yield what a person should know of the settings."""
        for note in self._notes:
            yield Finding("Configuration", note, verdict="note")
        if self._part:
            yield Finding("TALLY_SHARD", f"{self._part}. {SHARED_RATE}")

    async def examine_pubnub(self, deadline: Deadline) -> AsyncIterator[Finding]:
        """Send what a worker sends, if there is a keyset."""
        client = self._client
        if not client:
            return
        if client.token.end:
            yield await examine_token(client.token.end, time.time(), deadline)
        size = self._settings.channels_per_subscription
        findings = examine_pubnub(client, self._followed, size, time.time, deadline)
        async for finding in findings:
            yield finding


def _sites(settings: Settings) -> Iterator[Finding]:
    is_known = settings.report.is_known
    if not is_known("TALLY_HTTP", "TALLY_API_TOKEN"):
        return
    if settings.api and settings.http:
        yield Finding("TALLY_API", describe_api(settings, settings.http))
    if settings.board and settings.http:
        yield Finding("TALLY_BOARD", describe_board(settings, settings.http))


async def _examine_redis(
    settings: Settings,
    deadline: Deadline,
    *,
    allow_eviction: bool,
) -> list[Finding]:
    claim = _claim(settings)
    findings: list[Finding] = []

    async def check() -> str:
        keys = _keys(settings)
        async with _redis_to_examine(settings, findings) as redis:
            findings.extend(
                await examine_redis(
                    redis,
                    keys,
                    claim,
                    deadline,
                    allow_eviction=allow_eviction,
                    wait_replicas=settings.wait_replicas,
                )
            )
            if all(finding.exit_code is ExitCode.DONE for finding in findings):
                tables = Tables(redis, keys)
                findings.extend(
                    await _examine_work(settings, tables, deadline),
                )
                findings.extend(
                    await examine_replicas(
                        redis,
                        keys,
                        deadline,
                        allow_eviction=allow_eviction,
                    ),
                )
        return ""

    # A little later than the checks inside: their findings are kept.
    opened = await Deadline(LOOK_SECONDS + CLOSE_SECONDS).look("Redis", check)
    if opened.exit_code is ExitCode.DONE:
        return findings
    has_failed = any(finding.exit_code for finding in findings)
    return findings if has_failed else [*findings, opened]


async def _examine_work(
    settings: Settings,
    tables: Tables,
    deadline: Deadline,
) -> list[Finding]:
    """Examine what workers have to do, and whether they do it.

    Settings with problems do not say what that is.
    """
    if settings.report.problems:
        return []
    names = _names(settings)
    return [
        await examine_rounds(
            tables,
            names.channels,
            schedule(settings),
            deadline,
        ),
        *await examine_following(tables, names, deadline),
    ]


def _claim(settings: Settings) -> Claim | None:
    if settings.report.problems:
        return None
    with suppress(TallyError):
        return claim_of(settings)
    return None


def _names(settings: Settings) -> Names:
    with suppress(TallyError):
        return configured_names(settings)
    return Names()


def _keys(settings: Settings) -> Keys:
    if not settings.report.is_known(*OF_REDIS):
        named = " or ".join(OF_REDIS)
        raise ConfigurationError(f"not examined: {named} cannot be read.")
    try:
        return Keys(settings.namespace)
    except InvalidNameError:
        raise ConfigurationError("not examined: TALLY_NAMESPACE is wrong.") from None


def _hints(settings: Settings) -> str:
    """Return the variables that may be meant for REDIS_URL, in words."""
    meant = filter(_means_redis_url, settings.report.unknown)
    return " ".join(["", *map(str, meant)]).rstrip()


def _means_redis_url(variable: UnknownVariable) -> bool:
    return variable.nearest == "REDIS_URL"


@asynccontextmanager
async def _redis_to_examine(
    settings: Settings,
    findings: list[Finding],
) -> AsyncIterator[RedisClient]:
    """Yield a client of the Redis that a worker would use.

    Without an address a worker starts a Valkey of its own. Its folder is not made here.
    """
    url, folder = settings.redis_url, EMBEDDED_FOLDER
    with ExitStack() as stack:
        if url is None and not folder.exists():
            temporary = tempfile.TemporaryDirectory(prefix="tally-doctor-")
            folder = Path(stack.enter_context(temporary), folder)
        if url is None:
            findings.append(examine_folder(_hints(settings)))
        async with opened_redis(url, folder=folder) as redis:
            yield redis
