"""What the settings ask for, in the words of the parts that get it."""

from worker.domain.shards import Share
from worker.settings import Settings
from worker.settings.checks import COUNTED, FOLLOW, KEYSET, demand
from worker.source.client import Keyset
from worker.source.names import Names
from worker.source.wire import CountedTypes
from worker.store.ownership import Claim


def keyset(settings: Settings) -> Keyset:
    """Return the keys and names that identify us to PubNub."""
    demand(settings, KEYSET)
    assert settings.subscribe_key  # noqa: S101 - for mypy: it was demanded
    return Keyset(
        settings.subscribe_key,
        settings.user_id,
        publish_key=settings.publish_key,
        secret_key=settings.secret_key,
        auth_token=settings.auth_token,
        origin=settings.origin,
        tls=settings.tls,
    )


def configured_names(settings: Settings) -> Names:
    """Return the names to follow, as they are set now."""
    return Names.of(settings.all_channels(), settings.channel_groups)


def followed_names(settings: Settings) -> Names:
    """Return the names to follow, at least one.

    Raises:
        ConfigurationError: everything that is wrong, together.
    """
    demand(settings, FOLLOW.checks)
    return configured_names(settings)


def share_of(settings: Settings) -> Share:
    """Return which channels this process keeps right, as far as the settings say."""
    share = Share(settings.shard)
    if share.shard:
        names = configured_names(settings)
        share.configure(names.channels, names.wildcards)
    return share


def counted_types(settings: Settings) -> CountedTypes:
    """Return which types are counted, at least one."""
    demand(settings, COUNTED)
    ignored = frozenset(settings.ignored_types)
    return CountedTypes(frozenset(settings.types), ignored)


def claim_of(settings: Settings) -> Claim:
    """Return what all processes of a namespace must share."""
    demand(settings, KEYSET)
    return Claim(
        subscribe_key=settings.subscribe_key or "",
        types=str(counted_types(settings)),
        retention_days=f"{settings.retention_days:.10g}",
        tombstone_seconds=str(settings.tombstone_seconds),
        settle_seconds=f"{settings.settle_seconds:.10g}",
    )
