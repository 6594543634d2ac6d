"""Problems with settings, and unknown variables."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from worker.errors import ConfigurationError


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

    def refusal(self, problems: Iterable[Problem]) -> ConfigurationError:
        """Return an error with a line for each problem and unknown variable."""
        problem_lines = map(str, problems)
        unknown_lines = map(str, self.unknown)
        lines = ("These settings are wrong:", *problem_lines, *unknown_lines)
        return ConfigurationError("\n  ".join(lines))
