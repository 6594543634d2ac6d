"""Problems with settings, and unknown variables."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from worker.errors import ConfigurationError

DOTENV: Final = ".env"
"""The file of settings, and the name of a problem with all of it."""

_BOUNDS: Final = {
    "gt": "more than",
    "ge": "at least",
    "lt": "less than",
    "le": "at most",
}
"""Name of a bound as pydantic has it → words."""
_UNITS: Final = {
    "SECONDS": " seconds",
    "WINDOW": " seconds",
    "DAYS": " days",
    "RATE": " requests a second",
    "LIMIT": " per cent",
}
"""How the name of a setting ends → its unit."""
_OUT_OF_RANGE: Final = (
    "greater_than",
    "less_than",
)
"""How pydantic's types of such errors begin."""


def reason_in_words(
    name: str,
    error: Mapping[str, Any],
    metadata: Iterable[object],
) -> str:
    """Return why a value is refused.

    ``metadata`` has the bounds of the setting. A number out of them
    is refused with both, and with the unit.
    """
    if not error["type"].startswith(_OUT_OF_RANGE):
        message: str = error["msg"]
        return message.removeprefix("Value error, ")
    _, _, ending = name.rpartition("_")
    unit = _UNITS.get(ending, "")
    bounds = " and ".join(_bounds(metadata))
    value = float(error["input"])
    return f"{value:.15g} is out of range, write {bounds}{unit}"


def _bounds(metadata: Iterable[object]) -> Iterator[str]:
    for limit in metadata:
        names = _BOUNDS.keys() & set(dir(limit))
        for name in names:
            bound = getattr(limit, name)
            yield f"{_BOUNDS[name]} {bound:.15g}"


@dataclass(frozen=True, slots=True)
class Problem:
    """A sentence without a secret, and setting → source."""

    sentence: str
    sources: Mapping[str, str]

    def __str__(self) -> str:
        places = (f" ({name}: {source})" for name, source in self.sources.items())
        return f"{self.sentence}{''.join(places)}"

    def is_about(self, names: Collection[str]) -> bool:
        """Tell whether one of these settings, or its file, has the problem."""
        settings = {name.removesuffix("_FILE") for name in self.sources}
        return not settings.union(self.sources).isdisjoint(names)


@dataclass(frozen=True, slots=True)
class UnknownVariable:
    """A variable that looks like a setting, and the nearest setting."""

    name: str
    source: str
    nearest: str | None

    def __str__(self) -> str:
        hint = f"; is {self.nearest} meant?" if self.nearest else "."
        return f"{self.name} ({self.source}) is no setting{hint}"


@dataclass(slots=True)
class Report:
    """Setting → source, and what is wrong."""

    sources: dict[str, str] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    unknown: list[UnknownVariable] = field(default_factory=list)

    def is_known(self, *names: str) -> bool:
        """Tell whether these settings are what was meant.

        One with a problem has its default.
        """
        if self._has_problem(names):
            return False
        if self._has_problem([DOTENV]):
            return self.sources.keys() >= set(names)
        return True

    def _has_problem(self, names: Collection[str]) -> bool:
        return any(problem.is_about(names) for problem in self.problems)

    def refusal(self, problems: Iterable[Problem]) -> ConfigurationError:
        """Return an error with a line for each problem and unknown variable."""
        problem_lines = map(str, problems)
        unknown_lines = map(str, self.unknown)
        lines = ("These settings are wrong:", *problem_lines, *unknown_lines)
        return ConfigurationError("\n  ".join(lines))
