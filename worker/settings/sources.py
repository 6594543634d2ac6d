"""The sources of settings: the environment, ``.env``, and the files of secrets.

The environment goes before ``.env``. An empty text is no value.
"""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from difflib import get_close_matches
from io import StringIO
from itertools import filterfalse
from pathlib import Path
from typing import Final

from dotenv import dotenv_values
from dotenv.parser import Original, parse_stream
from pydantic import ValidationError
from pydantic_settings import EnvSettingsSource
from pydantic_settings.sources.utils import parse_env_vars

from worker.errors import ConfigurationError
from worker.settings.fields import FIELDS, SECRETS, Settings
from worker.settings.files import list_lines, read_secret, read_text
from worker.settings.problems import DOTENV, Problem, Report, UnknownVariable, reason_in_words

ENVIRONMENT: Final = "environment"

# Kubernetes sets TALLY_SERVICE_HOST and more for a Service called "tally".
_LIKE_A_SETTING: Final = re.compile(
    r"(?!\w+_(SERVICE_HOST|SERVICE_PORT\w*|PORT|PORT_[0-9]+_\w+)$)"
    r"(TALLY|PUBNUB)_"
)


_REDIS_OF_OTHERS: Final = frozenset({"REDISURL", "REDIS_URI", "REDIS_HOST"})
"""Names by which other programs find Redis. They matter only without REDIS_URL."""
_MEANS_REDIS_URL: Final = _REDIS_OF_OTHERS | {"TALLY_REDIS_URL"}


class DotEnvSource(EnvSettingsSource):
    """The file ``.env`` in the working folder, read literally.

    A ``${…}`` stays as it is, because a password may hold one.
    """

    def _load_env_vars(self) -> Mapping[str, str | None]:
        path = Path(DOTENV)
        if not path.is_file():
            return {}

        text = read_text(DOTENV, path)
        _check_lines(text)
        texts = dotenv_values(stream=StringIO(text), interpolate=False)
        return parse_env_vars(texts, ignore_empty=True)


def _check_lines(text: str) -> None:
    """Refuse a line that dotenv would pass over in silence."""
    bindings = parse_stream(StringIO(text))
    wrong = [_line_number(binding.original) for binding in bindings if binding.error]
    if wrong:
        # The line is not quoted: it may be a secret, in quotes that do not end.
        raise ConfigurationError(
            f"{DOTENV}: {list_lines(wrong)}: not of the form NAME=value, "
            "with quotes that end where there are any."
        )


def _line_number(line: Original) -> int:
    """Return the number of a line, to which dotenv counts the blank ones above."""
    blank = line.string[: len(line.string) - len(line.string.lstrip())]
    return line.line + blank.count("\n")


class SettingsReader:
    """Reads the sources one by one, so that all problems are reported together."""

    def __init__(self) -> None:
        self._texts: dict[str, str] = {}
        self._report = Report()

    def read(self) -> Settings:
        """Return the settings; one with a problem keeps its default."""
        self._add(ENVIRONMENT, EnvSettingsSource(Settings))
        try:
            self._add(DOTENV, DotEnvSource(Settings))
        except (ConfigurationError, OSError) as error:
            path = str(Path(DOTENV).absolute())
            problem = Problem(str(error), {DOTENV: path})
            self._report.problems.append(problem)
        for name in SECRETS:
            self._read_file_of(name, f"{name}_FILE")
        if "REDIS_URL" in self._texts:
            self._pass_over(_REDIS_OF_OTHERS)

        settings = self._build()
        settings._report = self._report  # noqa: SLF001 - what its reader found
        return settings

    def _add(self, name: str, source: EnvSettingsSource) -> None:
        texts = source()
        self._texts = texts | self._texts
        self._report.sources = dict.fromkeys(texts, name) | self._report.sources
        self._report.unknown += _find_unknown(name, source.env_vars)

    def _read_file_of(self, name: str, file_name: str) -> None:
        sources = self._report.sources
        if file_name not in self._texts:
            return

        if sources.get(name) == sources[file_name]:
            self._note(f"{name} and {file_name} are both set; keep one.", name, file_name)
        elif sources.get(name) == ENVIRONMENT:
            del self._texts[file_name], sources[file_name]
        else:
            self._read_secret(name, file_name)

    def _read_secret(self, name: str, file_name: str) -> None:
        path = Path(self._texts[file_name])
        try:
            self._texts[name] = read_secret(file_name, path)
            self._report.sources[name] = f"file {path}"
        except ConfigurationError as error:
            self._note(str(error), file_name)

    def _pass_over(self, names: Collection[str]) -> None:
        def is_one(variable: UnknownVariable) -> bool:
            return variable.name in names

        remaining = filterfalse(is_one, self._report.unknown)
        self._report.unknown = list(remaining)

    def _build(self) -> Settings:
        try:
            return Settings.model_validate(self._texts)
        except ValidationError as errors:
            for error in errors.errors():
                name = str(error["loc"][0])
                attribute = FIELDS[name]
                metadata = Settings.model_fields[attribute].metadata
                reason = reason_in_words(name, error, metadata)
                self._note(f"{name}: {reason}.", name)
                self._texts.pop(name, None)
        return Settings.model_validate(self._texts)

    def _note(self, sentence: str, *names: str) -> None:
        sources = {name: self._report.sources[name] for name in names}
        self._report.problems.append(Problem(sentence, sources))


def _find_unknown(source: str, variables: Iterable[str]) -> Iterator[UnknownVariable]:
    names = set(map(str.upper, variables)) - FIELDS.keys()
    like_settings = set(filter(_LIKE_A_SETTING.match, names))
    for name in sorted(like_settings | (names & _REDIS_OF_OTHERS)):
        yield UnknownVariable(name, source, _nearest(name))


def _nearest(name: str) -> str | None:
    """Return the setting that is meant, perhaps."""
    if name in _MEANS_REDIS_URL:
        return "REDIS_URL"
    similar = get_close_matches(name, FIELDS, 1, cutoff=0.75)
    return next(iter(similar), None)


def read(only: Collection[str] = FIELDS) -> tuple[Settings, list[Problem]]:
    """Return the settings, and the problems with those that are named.

    A setting with a problem keeps its default.
    """
    settings = SettingsReader().read()
    names = (*only, DOTENV)
    problems = [problem for problem in settings.report.problems if problem.is_about(names)]
    return settings, problems
