"""The tables of ``deploy/situations.md``, row by row."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

DOCUMENT: Final = Path(__file__).parents[2] / "deploy" / "situations.md"
NOTHING: Final = "–"
"""A cell of what does not apply."""
RUNS: Final = "runs"
_CELLS: Final = re.compile(r"(?<!\\)\|")
_WORDS: Final = re.compile(r"`([^`]+)`")
_COLUMNS: Final = 7


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One situation, and what an operator sees of it."""

    situation: str
    says: tuple[str, ...]
    """What the doctor prints; … stands for any text."""
    doctor_code: int
    worker_code: int | None
    """None: the worker keeps running."""
    status: int | None
    """Of ``/readyz``; None if there is no worker to ask."""
    check: str
    """The check of that page that fails; empty if none does."""
    reason: str
    """Why, as the page says."""
    event: str
    """In the log; empty if there is no entry of it."""

    @classmethod
    def read(cls, line: str) -> Self:
        """Return a row of the document."""
        _, *cells, _ = _CELLS.split(line)
        texts = [cell.strip().replace("\\|", "|") for cell in cells]
        situation, says, code, worker, ready, event, _ = texts
        status, check, reason = _read_page(ready)
        return cls(
            situation=situation.replace("`", ""),
            says=tuple(_WORDS.findall(says)),
            doctor_code=int(code),
            worker_code=None if worker == RUNS else int(worker),
            status=status,
            check=check,
            reason=reason,
            event="".join(_WORDS.findall(event)),
        )


def _read_page(cell: str) -> tuple[int | None, str, str]:
    """Return the status of ``/readyz``, the check that fails, and its reason."""
    if cell == NOTHING:
        return None, "", ""
    status, _, _ = cell.partition(" ")
    check, reason, *_ = (*_WORDS.findall(cell), "", "")
    return int(status), check, reason


def read_rows(document: Path = DOCUMENT) -> Iterator[Row]:
    """Yield the rows of all tables, without their heads."""
    for line in document.read_text("utf-8").splitlines():
        is_row = len(_CELLS.findall(line)) == _COLUMNS + 1
        if is_row and not line.startswith(("| situation", "|---")):
            yield Row.read(line)


def is_said(words: str, text: str) -> bool:
    """Tell whether a text has these words, whatever white space is between them."""
    parts = [r"\s+".join(map(re.escape, part.split())) for part in words.split("…")]
    return bool(re.search(r"[^\n]*".join(parts), text))
