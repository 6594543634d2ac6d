"""The JSON of an answer, most of which strangers wrote: one message must not make the whole answer unreadable."""

import json
import re
from typing import Final

MAX_DIGITS: Final = 1_000
"""Digits of a whole number beyond which it stays text: Python refuses to convert some thousands."""
MAX_DEPTH: Final = 100
"""Levels kept of an answer that is nested more deeply than Python's parser goes."""
_TOKEN: Final = re.compile(r'"(?:[^"\\]|\\.)*"|[\[\]{}]', re.DOTALL)


def decode(content: bytes) -> object:
    """Return the document; bytes that are not UTF-8 become lone surrogates, which spoil only the text they stand in.

    Raises:
        ValueError: it is not JSON.
    """
    text = content.decode("utf-8-sig", "surrogateescape")
    try:
        return json.loads(text, parse_int=_whole)
    except RecursionError:
        return json.loads(_shallow(text), parse_int=_whole)


def _whole(digits: str) -> int | str:
    return int(digits) if len(digits) <= MAX_DIGITS else digits


def _shallow(text: str) -> str:
    """Return the JSON text with null in place of whatever lies deeper than ``MAX_DEPTH``."""
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
