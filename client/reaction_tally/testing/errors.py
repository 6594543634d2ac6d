"""What the tools for tests raise."""


class NotInstalledError(Exception):
    """A distribution is missing. The message says which one to install."""


class ReactionRefusedError(Exception):
    """PubNub refuses this.

    Examples: the user has reacted so already; there is no such reaction to remove.
    """


class ServiceFailedError(Exception):
    """A process did not start, or ended, or hangs. The message has the end of its output."""
