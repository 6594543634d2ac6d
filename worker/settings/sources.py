"""The sources of settings: the environment, ``.env``, and the files of secrets.

The environment goes before ``.env``. An empty text is no value.
"""

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from io import StringIO
from pathlib import Path
from typing import Any, Final, Self

from dotenv import dotenv_values
from dotenv.parser import Binding, parse_stream
from pydantic import ModelWrapValidatorHandler, ValidationError, model_validator
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
)

from worker.errors import ConfigurationError
from worker.settings.fields import FIELDS, SECRETS, Settings
from worker.settings.problems import Problem, Report, UnknownVariable
from worker.settings.text_file import list_lines, read_secret, read_text

ENVIRONMENT: Final = "environment"
DOTENV: Final = ".env"

# Kubernetes sets TALLY_SERVICE_HOST and more for a Service called "tally".
_LIKE_A_SETTING: Final = re.compile(
    r"(?!\w+_(SERVICE_HOST|SERVICE_PORT\w*|PORT|PORT_[0-9]+_\w+)$)"
    r"(TALLY|PUBNUB)_"
)


@dataclass(frozen=True, slots=True)
class Given:
    """The text of a setting, and its source."""

    text: str = field(repr=False)
    source: str


class EnvironmentSource(EnvSettingsSource):
    """The environment. A secret may stand in the file that ``NAME_FILE`` names."""

    source: str = ENVIRONMENT

    def __init__(self, settings_cls: type[BaseSettings]) -> None:
        self.problems: list[Problem] = []
        super().__init__(settings_cls)
        self.given = {
            name.upper(): Given(text, self.source) for name, text in self.env_vars.items() if text
        }

    def __call__(self) -> dict[str, Any]:
        """Return name → ``Given``, and source → the problems there."""
        for name in SECRETS:
            self._read_file_of(name, f"{name}_FILE")
        return {**self.given, self.source: self.problems}

    def _read_file_of(self, name: str, file_name: str) -> None:
        """Read the file of a secret, unless an earlier source gives the secret."""
        path = self.given.get(file_name)
        if path is None:
            return

        if {name, file_name} & self.current_state.keys():
            del self.given[file_name]
        elif name in self.given:
            sentence = f"{name} and {file_name} are both set; keep one."
            self._report(sentence, name, file_name)
        else:
            self._read_secret(name, file_name, Path(path.text))

    def _read_secret(self, name: str, file_name: str, path: Path) -> None:
        try:
            self.given[name] = Given(read_secret(file_name, path), f"file {path}")
        except ConfigurationError as error:
            self._report(str(error), file_name)

    def _report(self, sentence: str, *names: str) -> None:
        problem = Problem(sentence, dict.fromkeys(names, self.source))
        self.problems.append(problem)


class DotEnvSource(EnvironmentSource):
    """The file ``.env`` in the working folder."""

    source = DOTENV

    def _load_env_vars(self) -> Mapping[str, str | None]:
        try:
            return read_dotenv(Path(DOTENV))
        except (ConfigurationError, OSError) as error:
            path = str(Path(DOTENV).absolute())
            self.problems.append(Problem(str(error), {DOTENV: path}))
            return {}


def read_dotenv(path: Path) -> Mapping[str, str | None]:
    """Return name → text.

    A ``${…}`` stays as it is, because a password may hold one.

    Raises:
        ConfigurationError: A line is not of the form NAME=value.
        OSError: The folder is unreadable.
    """
    if not path.is_file():
        return {}

    text = read_text(DOTENV, path)
    wrong_lines = [
        _line_number(binding) for binding in parse_stream(StringIO(text)) if binding.error
    ]
    if wrong_lines:
        # The line is not quoted: it may be a secret, in quotes that do not end.
        raise ConfigurationError(
            f"{DOTENV}: {list_lines(wrong_lines)}: not of the form NAME=value, "
            "with quotes that end where there are any."
        )
    return dotenv_values(stream=StringIO(text), interpolate=False)


def _line_number(binding: Binding) -> int:
    # The parser counts the blank lines above a line as a part of it.
    text = binding.original.string
    blank = text[: len(text) - len(text.lstrip())]
    return binding.original.line + blank.count("\n")


class EnvironmentSettings(BaseSettings, Settings):
    """The settings that the environment, ``.env`` and the files of secrets give.

    A wrong value leaves its setting at the default,
    so that all problems are reported together.
    """

    @classmethod
    def settings_customise_sources(
        cls, settings_cls: type[BaseSettings], *_: Any, **__: Any
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Return the sources; an earlier one goes before a later one."""
        return EnvironmentSource(settings_cls), DotEnvSource(settings_cls)

    @model_validator(mode="wrap")
    @classmethod
    def _collect_problems(
        cls, found: dict[str, Any], build: ModelWrapValidatorHandler[Self]
    ) -> Self:
        """Build the settings from the texts that are right, and report the others."""
        problems = [*found.pop(DOTENV), *found.pop(ENVIRONMENT)]
        texts = {name: given.text for name, given in found.items()}
        sources = {name: given.source for name, given in found.items()}

        try:
            settings = build(texts)
        except ValidationError as error:
            for name, reason in _reasons(error):
                sentence = f"{name}: {reason}."
                problems.append(Problem(sentence, {name: sources[name]}))
                texts.pop(name, None)
            settings = build(texts)

        report = Report(sources, problems, _find_unknown(sources))
        settings._report = report  # noqa: SLF001 - an attribute of this class
        return settings


def _reasons(error: ValidationError) -> Iterator[tuple[str, str]]:
    """Yield each setting that is refused, and why."""
    for item in error.errors():
        reason = item["msg"].removeprefix("Value error, ")
        yield str(item["loc"][0]), reason


def _find_unknown(sources: Mapping[str, str]) -> list[UnknownVariable]:
    names = sorted(sources.keys() - FIELDS)
    return [
        UnknownVariable(name, sources[name], _find_nearest(name))
        for name in filter(_LIKE_A_SETTING.match, names)
    ]


def _find_nearest(name: str) -> str | None:
    matches = get_close_matches(name, FIELDS, 1, cutoff=0.75)
    return next(iter(matches), None)


def read(only: Collection[str] = FIELDS) -> tuple[Settings, list[Problem]]:
    """Return the settings, and the problems with those that are named.

    A setting with a problem is left at its default.
    """
    settings = EnvironmentSettings()
    problems = settings.report.problems
    names = (*only, DOTENV)
    return settings, [problem for problem in problems if problem.is_about(names)]
