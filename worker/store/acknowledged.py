"""What Redis has acknowledged to this process, so that a loss shows."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from reaction_tally.journal import START, stream_order

Position = tuple[str, str]
"""A channel, and the id of an entry in its journal."""


@dataclass(frozen=True, slots=True)
class Unconfirmed:
    """What a shard of a cluster has acknowledged, and may have lost at once."""

    older_heads: frozenset[Position]
    taken_back: Mapping[str, int]


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
        self.marks: dict[str, dict[str, int]] = {}
        """Channel → cause → number of the mark, if no later save proves it."""
        self.proven: dict[str, dict[str, tuple[str, int]]] = {}
        """Channel → cause of a mark → the save that proves it.

        The save may be lost, too.
        """
        self.mark_count = 0
        self.is_cluster = False
        """Whether a cursor lies on another server than most marks: its save proves none."""
        self.older_heads: set[Position] = set()
        """Heads after which another process wrote. Its entry does not prove them.

        Only in a cluster, and only until its signs have been read again.
        """
        self.taken_back: dict[str, int] = {}
        """Channel → ``mark_count`` when all its marks were taken back.

        Kept as long as ``older_heads``.
        """

    def note_channels(self, channels: Collection[str]) -> None:
        """Remember channels."""
        self.channels.update(channels)

    def note_head(self, channel: str, head: str, before: str) -> None:
        """Note a channel's journal head, and the one before.

        An older one changes nothing.
        """
        self.channels.add(channel)
        known = self.heads.get(channel, START)
        is_next = known == before
        if is_next or stream_order(head) > stream_order(known):
            self.heads[channel] = head
            if self.is_cluster and not is_next and known != START:
                self.older_heads.add((channel, known))

    def note_heads(self, heads: Mapping[str, str]) -> None:
        """Note heads that were read: whatever is lost of them later will show."""
        for channel, head in heads.items():
            if head != START:
                self.note_head(channel, head, START)

    def positions(self) -> list[Position]:
        """Return the newest head of each channel, then the older ones."""
        return [*self.heads.items(), *self.older_heads]

    def forget_head(self, channel: str) -> None:
        """Forget the head of a channel whose keys another program has written."""
        self.heads.pop(channel, None)

    def note_marks(self, cause: str, channels: Collection[str]) -> None:
        """Note that channels were marked."""
        self.mark_count += 1
        for channel in channels:
            self.marks.setdefault(channel, {})[cause] = self.mark_count

    def note_taken_back(self, channel: str, count: int | None = None) -> None:
        """Note that all marks of a channel were taken back, up to this number."""
        count = self.mark_count if count is None else count
        if self.is_cluster:
            self.taken_back[channel] = count
        else:
            self._forget_marks(channel, count)

    def _forget_marks(self, channel: str, count: int) -> None:
        """Forget the marks of a channel up to this number."""
        self.proven.pop(channel, None)
        self._remove_marks(channel, count)

    def _remove_marks(self, channel: str, count: int) -> Collection[str]:
        """Remove the marks of a channel up to this number; return their causes."""
        numbers = self.marks.pop(channel, {})
        newer = {cause: number for cause, number in numbers.items() if number > count}
        if newer:
            self.marks[channel] = newer
        return numbers.keys() - newer

    def unconfirmed(self) -> Unconfirmed:
        """Return what the next reading of the signs may confirm."""
        return Unconfirmed(frozenset(self.older_heads), dict(self.taken_back))

    def confirm(self, items: Unconfirmed) -> None:
        """Forget these items: the signs read after them were the trusted ones."""
        self.older_heads -= items.older_heads
        for channel, count in items.taken_back.items() & self.taken_back.items():
            del self.taken_back[channel]
            self._forget_marks(channel, count)

    def note_save(self, subscription: str, saves: int, sent: int) -> None:
        """Note a saved cursor, which was sent when ``mark_count`` was ``sent``.

        It proves the marks before.
        """
        self.saves[subscription] = saves
        if self.is_cluster:
            return
        for channel in [*self.marks]:
            proven = self._remove_marks(channel, sent)
            if proven:
                proofs = dict.fromkeys(proven, (subscription, saves))
                self.proven.setdefault(channel, {}).update(proofs)

    @property
    def proving_subscriptions(self) -> set[str]:
        """Subscriptions whose saves prove marks."""
        return {name for proofs in self.proven.values() for name, _ in proofs.values()}

    def doubt_saves(self, held: Mapping[str, int]) -> None:
        """Note marks again if Redis lacks the save that proves them.

        ``held`` is the number of saves of each subscription.
        """
        for channel, proofs in self.proven.items():
            for cause, (subscription, saves) in proofs.items():
                if held.get(subscription, 0) < saves:
                    self.note_marks(cause, [channel])

    def forget_positions(self) -> None:
        """Forget heads and cursors: Redis may hold older ones from now on."""
        self.heads.clear()
        self.older_heads.clear()
        self.saves.clear()
