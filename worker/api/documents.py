"""What the API answers, as JSON. Timetokens and positions are text: 17 digits fit no float."""

import json
from collections.abc import Sequence
from typing import Any

from reaction_tally.values import Change, Message, Page, Reaction, Reset, TopMessage, Who

Document = dict[str, Any]


def page_document(
    channel: str,
    page: Page,
    age: Document,
    *,
    has_me: bool,
    has_names: bool,
) -> Document:
    """Return a page. ``mine`` and names are there only if they were asked for.

    ``age`` says how old the last heartbeat is; it is empty if that could not be read.
    """
    messages = [
        _message(message, has_me=has_me, has_names=has_names) for message in page.messages.values()
    ]
    return {
        "channel": channel,
        "position": page.position,
        "in_doubt": page.in_doubt,
        **age,
        "messages": messages,
    }


def _message(message: Message, *, has_me: bool, has_names: bool) -> Document:
    reactions = [
        _reaction(reaction, has_me=has_me, has_names=has_names) for reaction in message.reactions
    ]
    return {"timetoken": message.timetoken, "total": message.total, "reactions": reactions}


def _reaction(reaction: Reaction, *, has_me: bool, has_names: bool) -> Document:
    document: Document = {
        "type": reaction.type,
        "value": reaction.value,
        "count": reaction.count,
    }
    if has_me:
        document |= {"mine": reaction.mine, "mine_at": reaction.mine_at}
    if has_names:
        document |= {
            "names": list(reaction.names),
            "more": reaction.more,
            "first_at": reaction.first_at,
            "last_at": reaction.last_at,
        }
    return document


def who_document(who: Who) -> Document:
    """Return a page of users."""
    reactors = [{"user": each.user, "at": each.at} for each in who.reactors]
    return {"total": who.total, "reactors": reactors, "after": who.after}


def top_document(channel: str, top: Sequence[TopMessage]) -> Document:
    """Return the messages with the most reactions."""
    messages = [{"timetoken": each.timetoken, "count": each.count} for each in top]
    return {"channel": channel, "messages": messages}


def change_document(change: Change) -> Document:
    """Return a change. Type and value are None if every count of the message is gone."""
    is_end = change.ends_message
    return {
        "channel": change.channel,
        "message": change.message_timetoken,
        "type": None if is_end else change.type,
        "value": None if is_end else change.value,
        "count": change.count,
        "position": change.position,
    }


def reset_document(reset: Reset | None) -> Document:
    """Return a reset of a channel; of every channel for None."""
    if reset is None:
        return {"channel": None, "position": None}
    return {"channel": reset.channel, "position": reset.position}


def as_text(document: Document) -> str:
    """Return a document as one line in ASCII."""
    return json.dumps(document, separators=(",", ":"))
