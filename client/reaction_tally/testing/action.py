"""One user's reaction to one message, as tests name it."""

from dataclasses import dataclass

from reaction_tally.arguments import timetoken_of
from reaction_tally.keys import action_field, tally_field


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """Who reacted to what, and how."""

    channel: str
    message_timetoken: str
    type: str
    value: str
    user: str

    @classmethod
    def of(
        cls,
        channel: str,
        message_timetoken: str | int,
        value: str,
        user: str,
        type: str,
    ) -> "Action":
        """Return it, its timetoken as text.

        Raises:
            TypeError: the timetoken is something else than text or a whole number.
        """
        return cls(
            channel=channel,
            message_timetoken=timetoken_of(message_timetoken),
            type=type,
            value=value,
            user=user,
        )

    @property
    def tally(self) -> str:
        """The field of ``counts`` that counts it."""
        return tally_field(self.type, self.value)

    @property
    def field(self) -> str:
        """Its field of ``actions``."""
        return action_field(self.type, self.value, self.user)

    def __str__(self) -> str:
        place = f"message {self.message_timetoken} in {self.channel!r}"
        return f"{self.type} {self.value!r} of {self.user!r} on {place}"
