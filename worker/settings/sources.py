"""The sources of settings: the environment, ``.env``, and the files of secrets.

The environment goes before ``.env``. An empty text is no value.
"""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from difflib import get_close_matches
from io import StringIO
from pathlib import Path
from typing import Final

from dotenv import dotenv_values
from dotenv.parser import Binding, parse_stream
from pydantic import ValidationError
from pydantic_settings import EnvSettingsSource
from pydantic_settings.sources.utils import parse_env_vars

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
    wrong = [_line_number(binding) for binding in bindings if binding.error]
    if wrong:
        # The line is not quoted: it may be a secret, in quotes that do not end.
        raise ConfigurationError(
            f"{DOTENV}: {list_lines(wrong)}: not of the form NAME=value, "
            "with quotes that end where there are any."
        )


def _line_number(binding: Binding) -> int:
    """Return the number of a line, to which dotenv counts the blank ones above."""
    text = binding.original.string
    blank = text[: len(text) - len(text.lstrip())]
    return binding.original.line + blank.count("\n")


class SettingsReader:
    """Reads the sources one by one, so that all problems are reported together."""

    def __init__(self) -> None:
        self.texts: dict[str, str] = {}
        self.sources: dict[str, str] = {}
        self.problems: list[Problem] = []
        self.unknown: list[UnknownVariable] = []

    def read(self) -> Settings:
        """Return the settings; one with a problem keeps its default."""
        self._add(ENVIRONMENT, EnvSettingsSource(Settings))
        self._add_dotenv()
        for name in SECRETS:
            self._read_file_of(name, f"{name}_FILE")

        settings = self._build()
        report = Report(self.sources, self.problems, self.unknown)
        settings._report = report  # noqa: SLF001 - what its reader found
        return settings

    def _add(self, name: str, source: EnvSettingsSource) -> None:
        texts = source()
        self.texts = texts | self.texts
        self.sources = dict.fromkeys(texts, name) | self.sources
        self.unknown.extend(_find_unknown(name, source.env_vars))

    def _add_dotenv(self) -> None:
        try:
            self._add(DOTENV, DotEnvSource(Settings))
        except (ConfigurationError, OSError) as error:
            path = str(Path(DOTENV).absolute())
            self.problems.append(Problem(str(error), {DOTENV: path}))

    def _read_file_of(self, name: str, file_name: str) -> None:
        """Read the file of a secret, unless an earlier source gives the secret."""
        path = self.texts.get(file_name)
        if path is None:
            return

        source = self.sources.get(name)
        if source == self.sources[file_name]:
            sentence = f"{name} and {file_name} are both set; keep one."
            self._note(sentence, name, file_name)
        elif source == ENVIRONMENT:
            del self.texts[file_name], self.sources[file_name]
        else:
            self._read_secret(name, file_name, Path(path))

    def _read_secret(self, name: str, file_name: str, path: Path) -> None:
        try:
            self.texts[name] = read_secret(file_name, path)
            self.sources[name] = f"file {path}"
        except ConfigurationError as error:
            self._note(str(error), file_name)

    def _build(self) -> Settings:
        """Return the settings; one whose text is refused keeps its default."""
        try:
            return Settings.model_validate(self.texts)
        except ValidationError as error:
            for name, reason in _reasons(error):
                self._note(f"{name}: {reason}.", name)
                self.texts.pop(name, None)
        return Settings.model_validate(self.texts)

    def _note(self, sentence: str, *names: str) -> None:
        sources = {name: self.sources[name] for name in names}
        self.problems.append(Problem(sentence, sources))


def _reasons(error: ValidationError) -> Iterator[tuple[str, str]]:
    """Yield each setting that is refused, and why."""
    for item in error.errors():
        reason = item["msg"].removeprefix("Value error, ")
        yield str(item["loc"][0]), reason


def _find_unknown(source: str, variables: Iterable[str]) -> Iterator[UnknownVariable]:
    names = set(map(str.upper, variables)) - FIELDS.keys()
    for name in filter(_LIKE_A_SETTING.match, sorted(names)):
        yield UnknownVariable(name, source, _find_nearest(name))


def _find_nearest(name: str) -> str | None:
    matches = get_close_matches(name, FIELDS, 1, cutoff=0.75)
    return next(iter(matches), None)


def read(only: Collection[str] = FIELDS) -> tuple[Settings, list[Problem]]:
    """Return the settings, and the problems with those that are named.

    A setting with a problem keeps its default.
    """
    settings = SettingsReader().read()
    problems = settings.report.problems
    names = (*only, DOTENV)
    return settings, [problem for problem in problems if problem.is_about(names)]
