"""The JSON of PubNub's answers, most of it written by PubNub's users.

One hostile message must not make the whole answer unreadable.
"""

import json
import re
from typing import Final

MAX_DIGITS: Final = 1_000
"""The longest whole number that is converted; a longer one stays text.

Python refuses to convert some thousands of digits.
"""
MAX_DEPTH: Final = 100
"""The levels that are kept of JSON too deep for Python's parser."""
_TOKEN: Final = re.compile(r'"(?:[^"\\]|\\.)*"|[\[\]{}]', re.DOTALL)


def decode(content: bytes) -> object:
    """Return the decoded JSON.

    Bytes that are not UTF-8 become lone surrogates. They spoil only the
    text they stand in.

    Raises:
        ValueError: The bytes are not JSON.
    """
    text = content.decode("utf-8-sig", "surrogateescape")
    try:
        return json.loads(text, parse_int=_whole)
    except RecursionError:
        return json.loads(_shallow(text), parse_int=_whole)


def _whole(digits: str) -> int | str:
    return int(digits) if len(digits) <= MAX_DIGITS else digits


def _shallow(text: str) -> str:
    """Return the JSON with null in place of all values below ``MAX_DEPTH``."""
    kept: list[str] = []
    depth = resumed = 0
    for token in _TOKEN.finditer(text):
        if token[0] in "[{":
            if depth == MAX_DEPTH:
                kept += (text[resumed : token.start()], "null")
            depth += 1
        elif token[0] in "]}":
            depth -= 1
            if depth == MAX_DEPTH:
                resumed = token.end()
    return "".join(kept) + text[resumed:]
