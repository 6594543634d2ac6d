"""Everything as it is deployed: an emulator of PubNub, a Valkey, and the worker."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import Any, Final

from reaction_tally.arguments import channels_of
from reaction_tally.async_reader import AsyncTallyReader
from reaction_tally.keys import DEFAULT_NAMESPACE
from reaction_tally.reader import TallyReader
from reaction_tally.testing.emulator import (
    SUBSCRIBE_KEY,
    PubNubEmulator,
    get_json,
    origin_of,
    running_emulator,
    temporary_folder,
)
from reaction_tally.testing.processes import Process, running, wait_for
from reaction_tally.testing.servers import borrowed, embedded

CHANNELS: Final = ("room",)
SETTLE_SECONDS: Final = 0.5
"""How soon the worker compares a new channel with its list. The emulator's lists never lag."""


@contextmanager
def tally_service(
    channels: Sequence[str] = CHANNELS,
    *,
    redis_url: str | None = None,
    namespace: str = DEFAULT_NAMESPACE,
) -> Iterator["TallyService"]:
    """Run emulator, Valkey and worker until the block ends; yield when they are ready.

    With ``redis_url`` they use a Redis that runs already, which holds no tallies in this
    namespace. In the end the tallies of the block are deleted there.

    >>> with tally_service(["room"]) as service:
    ...     service.react("room", "17600000001728660", "👍", "ana")
    ...     service.settle()

    Raises:
        NotInstalledError: the worker's distribution is not installed.
        ServiceFailedError: a process does not start. The text says why.
    """
    with ExitStack() as stack:
        folder = stack.enter_context(temporary_folder())
        emulator = stack.enter_context(running_emulator(folder))
        origin = origin_of(emulator)
        channels = channels_of(channels)
        settings = _settings(origin, channels, namespace)
        if redis_url:
            settings["REDIS_URL"] = redis_url
        server = borrowed(redis_url, namespace) if redis_url else embedded(folder)
        stack.enter_context(server)
        worker = stack.enter_context(running(["run"], folder, settings))
        pages = wait_for(lambda: _ready_pages(worker), emulator, worker)

        url = redis_url or _embedded_url(worker)
        reader = TallyReader.from_url(url, namespace=namespace)
        stack.enter_context(reader)
        following = Following(channels, pages, (emulator, worker))
        yield TallyService(origin, url, reader, following)


def _settings(
    origin: str,
    channels: Sequence[str],
    namespace: str,
) -> dict[str, str]:
    return {
        "PUBNUB_ORIGIN": origin,
        "PUBNUB_TLS": "false",
        "PUBNUB_SUBSCRIBE_KEY": SUBSCRIBE_KEY,
        "TALLY_CHANNELS": ",".join(channels),
        "TALLY_NAMESPACE": namespace,
        "TALLY_SETTLE_SECONDS": str(SETTLE_SECONDS),
        "TALLY_HISTORY_RATE": "1000",
        "TALLY_HTTP": "127.0.0.1:0",
        "TALLY_LOG_FORMAT": "json",
    }


def _ready_pages(worker: Process) -> str | None:
    """Return host and port of the worker's pages, when it is ready."""
    entry = worker.entry("http_listens")
    if entry is None:
        return None
    pages = f"{entry['host']}:{entry['port']}"
    with suppress(OSError):
        status, _ = get_json(pages, "/readyz")
        if status == 200:
            return pages
    return None


def _embedded_url(worker: Process) -> str:
    entry = worker.entry("embedded_valkey")
    if entry is None:
        raise worker.failure("has not started a Valkey")
    return str(entry["url"])


class TallyService(PubNubEmulator):
    """A service that runs, and users who react.

    ``reader`` and ``async_reader`` read its tallies. An application under test reads them at
    ``redis_url``. Its SDK uses ``origin``, without TLS.
    """

    def __init__(
        self,
        origin: str,
        redis_url: str,
        reader: TallyReader,
        following: "Following",
    ) -> None:
        super().__init__(origin)
        namespace = reader.reads.keys.namespace
        self.redis_url = redis_url
        self.reader = reader
        self.async_reader = AsyncTallyReader.from_url(redis_url, namespace=namespace)
        self._following = following

    def react(
        self,
        channel: str,
        message_timetoken: str | int,
        value: str,
        user: str,
        type: str = "reaction",
    ) -> str:
        """Let a user react. Return the action timetoken.

        Raises:
            ReactionRefusedError: the user has reacted so already.
            ValueError: the worker does not follow this channel.
        """
        self._following.expect(channel)
        return super().react(channel, message_timetoken, value, user, type)

    def settle(self) -> None:
        """Return when all that happened at PubNub is counted, and no channel is in doubt.

        Raises:
            ServiceFailedError: a process has ended, or it takes more than a minute.
        """
        wait_for(self._is_settled, *self._following.processes)

    def _is_settled(self) -> bool | None:
        with suppress(OSError):  # a process has ended: ``wait_for`` says which
            if self._following.has_read(self.positions()):
                channels = sorted(self.reader.channels())
                is_in_doubt = self.reader.in_doubt(channels)
                return None if is_in_doubt else True
        return None


class Following:
    """What the worker of a service follows, and how far it has come."""

    def __init__(
        self,
        names: Sequence[str],
        pages: str,
        processes: Sequence[Process],
    ) -> None:
        """``pages`` is host and port of the worker's pages."""
        self.processes = processes
        self._names = names
        self._pages = pages

    def expect(self, channel: str) -> None:
        """Make sure that a channel is followed.

        Raises:
            ValueError: it is not.
        """
        if not _is_among(self._names, channel):
            followed = ", ".join(self._names)
            raise ValueError(
                f"The worker follows {followed}. To follow {channel!r}, too, give it to "
                "tally_service, or override the fixture tally_channels."
            )

    def has_read(self, positions: Mapping[str, int]) -> bool:
        """Tell whether the worker has counted all up to these positions of channels."""
        _, status = get_json(self._pages, "/status")
        return all(_has_read(each, positions) for each in status["subscriptions"])


def _has_read(
    subscription: Mapping[str, Any],
    positions: Mapping[str, int],
) -> bool:
    cursor = int(subscription["cursor"] or 0)
    names = subscription["names"]
    later = [channel for channel, position in positions.items() if position > cursor]
    return not any(_is_among(names, channel) for channel in later)


def _is_among(names: Sequence[str], channel: str) -> bool:
    """Tell whether names that are followed stand for a channel: ``a.*`` for ``a.b``."""
    prefixes = [name.removesuffix("*") for name in names if name.endswith(".*")]
    return channel in names or channel.startswith(tuple(prefixes))
