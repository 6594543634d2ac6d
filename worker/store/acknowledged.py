"""What Redis has acknowledged to this process, so that a loss shows."""

from collections.abc import Collection, Mapping

from reaction_tally.journal import START, stream_order


class Acknowledged:
    """What this process has written, or has read of.

    Redis keeps the order of writes. So if it has one, it has all before.
    """

    def __init__(self) -> None:
        self.channels: set[str] = set()
        """Every channel that this process has read of."""
        self.heads: dict[str, str] = {}
        """Channel → the newest head of its journal."""
        self.saves: dict[str, int] = {}
        """Subscription → the number of its newest save."""
        self.marks: dict[tuple[str, str], int] = {}
        """Cause and channel → number of the mark, if no later save proves it."""
        self.proven: dict[str, dict[str, tuple[str, int]]] = {}
        """Channel → cause of a mark → the save that proves it, unless it is lost, too."""
        self.mark_count = 0

    def note_channels(self, channels: Collection[str]) -> None:
        """Remember channels."""
        self.channels.update(channels)

    def note_head(self, channel: str, head: str, before: str) -> None:
        """Note a channel's journal head, and the one before; an older one changes nothing."""
        self.channels.add(channel)
        known = self.heads.get(channel, START)
        if known == before or stream_order(head) > stream_order(known):
            self.heads[channel] = head

    def forget_head(self, channel: str) -> None:
        """Forget the head of a channel whose keys another program has written."""
        self.heads.pop(channel, None)

    def note_marks(self, cause: str, channels: Collection[str]) -> None:
        """Note that channels were marked."""
        self.mark_count += 1
        self.marks |= dict.fromkeys([(cause, channel) for channel in channels], self.mark_count)

    def forget_marks(self, channel: str) -> None:
        """Forget the marks of a channel: all were taken back."""
        self.proven.pop(channel, None)
        for mark in [mark for mark in self.marks if mark[1] == channel]:
            del self.marks[mark]

    def note_save(self, subscription: str, saves: int, sent: int) -> None:
        """Note a saved cursor, which was sent when ``mark_count`` was ``sent``.

        It proves the marks before.
        """
        self.saves[subscription] = saves
        marks, self.marks = self.marks, {}
        for mark, number in marks.items():
            if number > sent:
                self.marks[mark] = number
            else:
                cause, channel = mark
                self.proven.setdefault(channel, {})[cause] = subscription, saves

    @property
    def subscriptions(self) -> set[str]:
        """Subscriptions whose saves prove marks."""
        return {name for proofs in self.proven.values() for name, _ in proofs.values()}

    def doubt_saves(self, held: Mapping[str, int]) -> None:
        """Take marks for proven no more if Redis lacks the save that proves them.

        ``held`` is the number of saves of each subscription.
        """
        for channel, proofs in self.proven.items():
            for cause, (subscription, saves) in proofs.items():
                if held.get(subscription, 0) < saves:
                    self.note_marks(cause, [channel])

    def forget_positions(self) -> None:
        """Forget heads and cursors: Redis may hold older ones from now on."""
        self.heads.clear()
        self.saves.clear()
