"""Lists of names: ``room,news`` in a setting, or a name a line in a file.

A list in another syntax is refused.
Otherwise its brackets and quotes would be parts of names,
and nothing would ever be counted under such names.
"""

import re
import unicodedata
from collections.abc import Iterable
from typing import Final

_OPENING: Final = '[]("`“”„‘«»'
"""A list in another syntax has one of these before a name."""
_CLOSING: Final = '"`“”»'
_APOSTROPHES: Final = "'’"
"""Names have them, too, such as ``dogs'``. Two of them around a name are quotes."""
_BEFORE: Final = re.compile(
    rf"[{re.escape(_OPENING)}]"
    rf"|{{?[{_APOSTROPHES}](?=(.*[{_APOSTROPHES}])?\Z)",
    re.DOTALL,
)
_DASH: Final = re.compile(r"-[ \t]")
"""A list in YAML has one before each name."""
_BRACES: Final = re.compile(r"{[^{}]*,[^{}]*}")
"""Names of users have braces, too. Around several names they are a list in another syntax."""
_BEHIND: Final = re.compile(rf"[{_CLOSING}]\Z")
_NOT_ASCII: Final = r"[^\x00-\x7f]"
# Persian words and some emoji have a joiner between two of their characters.
_JOINER: Final = re.compile(
    rf"(?<={_NOT_ASCII})"
    r"[\u200c\u200d]"
    rf"(?={_NOT_ASCII})"
)
# The flag of England is a flag, and letters that nobody sees, and their end.
_TAGS: Final = re.compile(
    r"(?<=[\u2600-\u27bf\ufe0f\U0001f000-\U0001faff])"
    r"[\U000e0020-\U000e007e]+\U000e007f"
)
_UNSEEN: Final = ("Cc", "Cf", "Zl", "Zp")
"""Categories of characters that nobody sees."""
_SYNTAX: Final = re.compile(rf"[\s){{}}{_APOSTROPHES}{re.escape(_OPENING)}]+")


_OTHER_SEPARATORS: Final = re.compile(r"[;|]")
"""PubNub takes both in a name. Lists of other programs have them between names."""
_DASHES: Final = re.compile(r"(?:^|(?<=[\s,]))-(?=\s)")
_EXAMPLE: Final = "room,news"
_SHOWN_CHARACTERS: Final = 60


class NameListError(ValueError):
    """A list that is not of the form ``room,news``.

    ``found`` is what it has instead, in words.
    """

    def __init__(self, found: str, text: str) -> None:
        super().__init__(found)
        self.found = found
        names = _bare_names(text)
        is_shown = 0 < len(names) <= _SHOWN_CHARACTERS
        self.right_form = names if is_shown else _EXAMPLE


def read_names(text: str) -> tuple[str, ...]:
    """Return the names in comma-separated text; ``a, b`` is two names.

    Raises:
        NameListError: the text has brackets or quotes around a name,
            white space in a name, or a character that nobody sees.
    """
    names = tuple(filter(None, map(_strip, text.split(","))))
    # Quotes may be around a name, or around all names.
    whole = _strip(text)
    findings = (_find_before(whole), *map(_find_syntax, names), _find_braces(whole))
    for found in filter(None, findings):
        raise NameListError(found, text)
    return names


def _strip(name: str) -> str:
    # Only what people type around a name. Python would strip more, such as U+00A0.
    return name.strip(" \t\r\n")


def _find_syntax(name: str) -> str | None:
    """Return what is no part of a name, in words; None if nothing is."""
    before = _find_before(name)
    if before:
        return before
    behind = _BEHIND.search(name)
    if behind:
        return f"{behind[0]} behind a name"
    return _find_unseen(_TAGS.sub("", _JOINER.sub("", name)))


def _find_braces(text: str) -> str | None:
    return "{ before a name" if _BRACES.fullmatch(text) else None


def doubtful_names(names: Iterable[str]) -> list[str]:
    """Return a sentence for each name that may be meant as several."""
    return [
        f"{name!r} is one name to PubNub. If several are meant, write commas between them."
        for name in names
        if _OTHER_SEPARATORS.search(name)
    ]


def _find_before(text: str) -> str | None:
    before = _DASH.match(text) or _BEFORE.match(text)
    return f"{before[0].strip()} before a name" if before else None


def _find_unseen(name: str) -> str | None:
    for character in name:
        if character.isspace():
            unicode_name = _unicode_name(character)
            return f"white space ({unicode_name}) in a name"
        if unicodedata.category(character) in _UNSEEN:
            unicode_name = _unicode_name(character)
            return f"the invisible character {unicode_name}"
    return None


def _unicode_name(character: str) -> str:
    """Return ``U+200B ZERO WIDTH SPACE`` for that character."""
    name = unicodedata.name(character, "control character")
    return f"U+{ord(character):04X} {name}"


def _bare_names(text: str) -> str:
    """Return the text as it should be: ``room,news`` for ``["room", "news"]``."""
    seen = "".join(filter(_is_seen, text))
    listed = _SYNTAX.sub(",", _DASHES.sub("", seen))
    names = filter(None, listed.split(","))
    return ",".join(names)


def _is_seen(character: str) -> bool:
    if character in "\t\n":
        return True
    return unicodedata.category(character) not in _UNSEEN
