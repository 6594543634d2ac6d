"""The form of what Redis holds, without the moments and numbers of one run.

Two releases that write the same form write the same schema. Example of a form:

    tally:cursor:<digest> is a hash for a week: saved_at = <seconds>
"""

import re
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from tests.keyspaces.dump import Line

MOMENTS: Final[tuple[tuple[str, str], ...]] = (
    (r"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])", "<64 hexadecimal digits>"),
    (r"(?<![0-9a-f])[0-9a-f]{32}(?![0-9a-f])", "<digest>"),
    (r"(?<![0-9a-f])(?=[0-9a-f]*[a-f])[0-9a-f]{16}(?![0-9a-f])", "<16 hexadecimal digits>"),
    (r"(?<!\d)\d{13}-\d+(?!\d)", "<journal id>"),
    (r"(?<!\d)\d{17}(?!\d)", "<timetoken>"),
    (r"(?<!\d)\d{16}(?!\d)", "<microseconds>"),
    (r"(?<!\d)\d{15}(?!\d)", "<who score>"),
    (r"(?<!\d)\d{13}(?!\d)", "<milliseconds>"),
    (r"(?<!\d)\d{10}(?!\d)", "<seconds>"),
)
"""What another run writes otherwise. The forms of 16 digits are told apart by their letters."""
NUMBER: Final = r"(?<!\d)\d+(?!\d)"
IN_DOUBT: Final = ("saves", "actions", "life")
"""Fields whose value depends on chance; ``life`` may have no letter among its digits."""
CHANGE: Final = re.compile(r"(\w+ \w+ \S+) -?\d+ (.*)", re.DOTALL)


def forms(lines: Iterable[Line]) -> set[str]:
    """Return the form of everything."""
    return {form for line in lines for form in _forms(line)}


def _forms(line: Line) -> Iterator[str]:
    begin = f"{_timeless(line.key)} is a {line.type} for {line.life.removeprefix('for ')}: "
    for part in _PARTS[line.type](line):
        yield begin + part


def _string(line: Line) -> Iterator[str]:
    is_number = line.key.endswith((":budget", ":pruned"))
    yield _numberless(line.value) if is_number else _timeless(line.value)


def _hash(line: Line) -> Iterator[str]:
    for field, value in line.value:
        name = _numbered_user(_timeless(field))
        yield f"{name} = {'<any>' if field in IN_DOUBT else _counted(line, value)}"


def _counted(line: Line, value: str) -> str:
    """Leave out the counts of a channel whose backfill was killed at some moment."""
    if line.key.endswith(":subscriptions"):
        # The names of a subscription have no order.
        return "\n".join(sorted(value.split("\n")))
    return _numberless(value) if _is_half_read(line) else _timeless(value)


def _set(line: Line) -> Iterator[str]:
    yield from line.value


def _zset(line: Line) -> Iterator[str]:
    for member, score in line.value:
        yield f"{_numbered_user(_timeless(member))} at {_timeless(str(score))}"


def _stream(line: Line) -> Iterator[str]:
    for _, fields in line.value:
        for field, value in fields.items():
            if field.isdecimal():
                yield f"<number> = {_change(value)}"
            else:
                yield f"{field} = {_timeless(value)}"


def _change(value: str) -> str:
    """Leave out the new count: it depends on the order."""
    match = CHANGE.fullmatch(value)
    assert match, value
    return _numbered_user(_timeless(f"{match[1]} <count> {match[2]}"))


def _numbered_user(text: str) -> str:
    return re.sub(r"(old|user)-\d+$", r"\1-<number>", text)


def _timeless(text: str) -> str:
    for pattern, name in MOMENTS:
        text = re.sub(pattern, name, text)
    return text


def _numberless(text: str) -> str:
    return re.sub(NUMBER, "<number>", _timeless(text))


def _is_half_read(line: Line) -> bool:
    return ":{long}:counts:" in line.key


_PARTS: Final[dict[str, Callable[[Line], Iterator[str]]]] = {
    "string": _string,
    "hash": _hash,
    "set": _set,
    "zset": _zset,
    "stream": _stream,
}
