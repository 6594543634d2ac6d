"""The JSON objects a subscribe answer carries, serialised once, as bytes."""

import json
from json.encoder import encode_basestring_ascii as quote
from typing import Final
from zlib import crc32

from worker.emulator.actions import Action

MESSAGE: Final = 0
SIGNAL: Final = 1
SHARD: Final = "5"


def region_of(uuid: str) -> int:
    """Return the region a user publishes from: seldom the one the subscriber reads in."""
    return 41 + crc32(uuid.encode(errors="replace")) % 3


class Envelopes:
    """Wraps what is published on one keyset."""

    def __init__(self, subscribe_key: str) -> None:
        self._key = quote(subscribe_key)

    def action(
        self, event: str, channel: str, action: Action, uuid: str, published_at: int
    ) -> bytes:
        """Return an `added` or `removed` event by that user; the data names the action, not the user."""
        data = f'{{"source":"actions","version":"1.0","event":"{event}","data":{{{action.fields()}}}}}'  # as recorded
        return self._wrap('"e":3,', channel, uuid, published_at, data)

    def message(
        self, kind: int, channel: str, payload: object, uuid: str, published_at: int
    ) -> bytes:
        """Return an ordinary message, or a signal; an ordinary one says nothing about its kind."""
        mark = f'"e":{kind},' if kind else ""
        return self._wrap(mark, channel, uuid, published_at, json.dumps(payload))

    def _wrap(self, mark: str, channel: str, uuid: str, published_at: int, data: str) -> bytes:
        return (
            f'{{"a":"{SHARD}","f":0,{mark}"i":{quote(uuid)},"p":{{"t":"{published_at}","r":{region_of(uuid)}}},'
            f'"k":{self._key},"c":{quote(channel)},"d":{data}}}'
        ).encode()
