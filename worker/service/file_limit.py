"""Are there enough file descriptors? A worker that runs out of them can neither poll nor log."""

import sys
from typing import Final

from worker.errors import ConfigurationError
from worker.source.names import Names
from worker.web.connection import MAX_SITE_CONNECTIONS, MAX_STREAMS

if sys.platform != "win32":
    import resource

EACH: Final = 3.25
"""A subscription has these connections, and a part of those of repairs:

- one to PubNub for its poll,
- one to PubNub for the handshake beside the poll, while PubNub is away,
- one to Redis.

Measured: 441 files with 200 subscriptions that follow.
300 connections to PubNub with 150 subscriptions whose polls and handshakes hang.
"""
BESIDES: Final = 48
"""Logs, the HTTP port, repairs, modules that are loaded late."""
SITES: Final = MAX_SITE_CONNECTIONS + MAX_STREAMS
"""Clients of what the worker serves besides its pages."""
_API_NEEDS: Final = f" Clients of TALLY_API need {SITES} of them."
PLENTY: Final = 8_192


def needed_files(names: Names, size: int, *, has_sites: bool = False) -> int:
    """Return how many descriptors a worker needs that follows these names.

    ``has_sites``: it serves more than its own pages over HTTP.
    """
    subscriptions = len(list(names.split(size)))
    sites = SITES if has_sites else 0
    return BESIDES + sites + round(EACH * subscriptions)


def ensure_files(names: Names, size: int, *, has_sites: bool = False) -> None:
    """Make sure that the process may open so many files; raise its soft limit if need be.

    Raises:
        ConfigurationError: the hard limit is too low.
    """
    if sys.platform == "win32":
        return
    needed = needed_files(names, size, has_sites=has_sites)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if _allows(soft, needed):
        return
    if not _allows(hard, needed):
        raise ConfigurationError(
            f"The limit of open files is {hard}; "
            f"to follow {len(names.all)} names the worker needs {needed}. "
            f"Raise it: ulimit -n {needed} in a shell, "
            f"LimitNOFILE={needed} in systemd. "
            "Or raise TALLY_CHANNELS_PER_SUBSCRIPTION: "
            "fewer subscriptions need fewer files."
            f"{_API_NEEDS if has_sites else ''}"
        )
    # More than is needed now: a busy subscription is halved later.
    wanted = max(needed, PLENTY)
    if not _allows(hard, wanted):
        wanted = hard
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _allows(limit: int, needed: int) -> bool:
    is_unlimited = limit == resource.RLIM_INFINITY
    return is_unlimited or limit >= needed
