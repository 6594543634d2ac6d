"""Text that others wrote, made fit for a terminal and for the log.

A command that only reads loads this module, but no log.
"""

import re
from collections.abc import Iterable
from heapq import nsmallest
from typing import Final

UNPRINTABLE: Final = re.compile(
    "["
    "\x00-\x1f\x7f-\x9f"  # control characters
    "\u2028\u2029"  # separators of lines and paragraphs
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # direction of the text
    "\u200b\u2060-\u2065\u206a-\u206f\ufeff\ufff9-\ufffb"  # invisible
    "\ud800-\udfff"  # lone surrogates
    "]"
)
EXAMPLES: Final = 5
"""So many names stand for many in an entry."""
QUOTATION_MARK: Final = re.compile("['\"`]")


def escape(text: str) -> str:
    r"""Return the text with an escape for each character a terminal would obey.

    Example: an escape character becomes the four characters ``\x1b``.
    """
    return UNPRINTABLE.sub(_escaped, text)


def unquoted(sentence: str) -> str:
    """Return a sentence up to its first quotation mark: others wrote what follows.

    Example: ``the event is 'x'`` becomes ``the event is …``.
    """
    before, *quoted = QUOTATION_MARK.split(sentence, maxsplit=1)
    return f"{before}…" if quoted else before


def _escaped(match: re.Match[str]) -> str:
    # A lone surrogate has no UTF-8, but it has an escape.
    return match[0].encode("unicode_escape", "surrogatepass").decode()


def examples(names: Iterable[str]) -> list[str]:
    """Return some of these names, for an entry that speaks of all."""
    return nsmallest(EXAMPLES, names)
