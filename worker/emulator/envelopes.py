"""The JSON objects of a subscribe answer, serialised once, as bytes."""

import json
from json.encoder import encode_basestring_ascii as quote
from typing import Final
from zlib import crc32

from worker.emulator.actions import Action

SHARD: Final = "5"


def region_of(uuid: str) -> int:
    """Return the region of a publisher, seldom that of the subscriber."""
    return 41 + crc32(uuid.encode(errors="replace")) % 3


class Envelopes:
    """Wraps the messages and events of one keyset."""

    def __init__(self, subscribe_key: str) -> None:
        self._key = quote(subscribe_key)

    def action(
        self,
        event: str,
        channel: str,
        action: Action,
        uuid: str,
        published_at: int,
    ) -> bytes:
        """Return an ``added`` or ``removed`` event.

        The user stands beside its data, as recorded.
        """
        data = (
            f'{{"source":"actions","version":"1.0","event":"{event}","data":{{{action.fields()}}}}}'
        )
        return self._wrap('"e":3,', channel, uuid, published_at, data)

    def message(
        self,
        kind: int,
        channel: str,
        payload: object,
        uuid: str,
        published_at: int,
    ) -> bytes:
        """Return an ordinary message (kind 0) or a signal (kind 1)."""
        mark = f'"e":{kind},' if kind else ""
        return self._wrap(mark, channel, uuid, published_at, json.dumps(payload))

    def _wrap(
        self,
        mark: str,
        channel: str,
        uuid: str,
        published_at: int,
        data: str,
    ) -> bytes:
        return (
            f'{{"a":"{SHARD}","f":0,{mark}'
            f'"i":{quote(uuid)},'
            f'"p":{{"t":"{published_at}","r":{region_of(uuid)}}},'
            f'"k":{self._key},"c":{quote(channel)},"d":{data}}}'
        ).encode()
