"""Problems with the settings, each with the settings it is about and their sources."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from worker.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class Problem:
    """A problem, in a sentence without a secret, and the sources (setting → source)."""

    sentence: str
    sources: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        places = (f" ({name}: {source})" for name, source in self.sources.items())
        return f"{self.sentence}{''.join(places)}"

    def is_about(self, names: Collection[str]) -> bool:
        """Tell whether one of these settings, or the file it stands in, has the problem."""
        settings = {name.removesuffix("_FILE") for name in self.sources}
        return not settings.union(self.sources).isdisjoint(names)


@dataclass(frozen=True, slots=True)
class UnknownVariable:
    """A variable that looks like a setting and is none, and the setting with the nearest name."""

    name: str
    source: str
    nearest: str | None

    def __str__(self) -> str:
        hint = f"; is {self.nearest} meant?" if self.nearest else "."
        return f"{self.name} ({self.source}) is no setting{hint}"


@dataclass(frozen=True, slots=True)
class Report:
    """What reading the settings found: setting → source, problems, and unknown variables."""

    sources: Mapping[str, str] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    unknown: list[UnknownVariable] = field(default_factory=list)


def refusal(
    problems: Iterable[Problem], unknown: Iterable[UnknownVariable] = ()
) -> ConfigurationError:
    """Return an error with a line for each problem, then for each unknown variable."""
    lines = map(str, (*problems, *unknown))
    return ConfigurationError("\n  ".join(("These settings are wrong:", *lines)))
