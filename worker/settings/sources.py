"""What was given for each setting, and where: in the environment, in ``.env``, or in a file that one of them names."""

import os
import re
import stat
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Final

from dotenv.parser import Original, parse_stream
from pydantic_settings import BaseSettings, EnvSettingsSource

from worker.errors import ConfigurationError

ENVIRONMENT: Final = "environment"
DOTENV: Final = ".env"
DEFAULT: Final = "default"

MAX_WRONG_LINES: Final = 10
"""Lines of a ``.env`` that are told; where there are more, it is some other file."""
MAX_SECRET_BYTES: Final = 65_536
"""No key, token or address is longer; what is, is another file."""

_OURS: Final = re.compile(r"(?:TALLY|PUBNUB)_")
# Kubernetes tells every container of every Service: one that is called "tally" looks like a slip of somebody's.
_OF_A_SERVICE: Final = re.compile(
    r"\w+_(?:SERVICE_(?:HOST|PORT(?:_\w+)?)|PORT(?:_[0-9]+_(?:TCP|UDP|SCTP)(?:_\w+)?)?)"
)

Texts = Mapping[str, str]
"""Name → text, as one source gives it."""


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong, in a sentence without a secret; whose fault it may be, and where each of them was given."""

    sentence: str
    places: tuple[tuple[str, str], ...]

    def __str__(self) -> str:
        if not self.places:
            return self.sentence
        if len(self.places) == 1 and self.sentence.startswith(self.places[0][0]):
            return f"{self.sentence} ({self.places[0][1]})"
        return f"{self.sentence} ({', '.join(f'{name}: {source}' for name, source in self.places)})"

    @property
    def names(self) -> frozenset[str]:
        """The settings it is about."""
        return frozenset(name for name, _ in self.places)


@dataclass(frozen=True, slots=True)
class Unknown:
    """A variable that looks like a setting and is none, and the setting that may have been meant."""

    name: str
    source: str
    nearest: str | None

    def __str__(self) -> str:
        said = f"{self.name} ({self.source}) is no setting"
        return f"{said}; is {self.nearest} meant?" if self.nearest else f"{said}."


@dataclass(frozen=True, slots=True)
class SettingSources:
    """What was given: name → text and name → source, what of it could not be had, and what is no setting."""

    texts: dict[str, str] = field(default_factory=dict, repr=False)
    sources: dict[str, str] = field(default_factory=dict)
    wrong: list[Problem] = field(default_factory=list)
    unknown: list[Unknown] = field(default_factory=list)

    def source(self, name: str) -> str:
        """Return where a setting comes from."""
        return self.sources.get(name, DEFAULT)

    def find_wrong(self, sentence: str, names: Iterable[str]) -> Problem:
        """Return what is wrong with these settings, with their sources."""
        return Problem(sentence, tuple((name, self.source(name)) for name in names))


def read_given(
    names: Iterable[str], secrets: Collection[str], known: Collection[str]
) -> SettingSources:
    """Read what the environment says of these settings, and ``.env`` where that says nothing; empty is nothing.

    The text of a secret may stand in the file that its ``NAME_FILE`` names. All ``known`` are settings: what else
    begins as ours do is told as unknown.
    """
    given = SettingSources()
    sources = [(ENVIRONMENT, _environment()), (DOTENV, _dotenv(given))]
    for name in names:
        if name.removesuffix("_FILE") in secrets and name not in secrets:
            continue  # taken with its secret
        for source, texts in sources:
            if _take(given, name, f"{name}_FILE" if name in secrets else "", source, texts):
                break
    for source, texts in sources:
        slips = (
            name
            for name in texts
            if _OURS.match(name) and name not in known and not _OF_A_SERVICE.fullmatch(name)
        )
        given.unknown.extend(Unknown(name, source, _nearest(name, known)) for name in sorted(slips))
    return given


def _take(given: SettingSources, name: str, file_name: str, source: str, texts: Texts) -> bool:
    """Take what one source says of a setting; tell whether it says anything."""
    text, path = texts.get(name), texts.get(file_name)
    if text is not None:
        given.sources[name] = source
        if path is not None:
            given.sources[file_name] = source
            given.wrong.append(
                given.find_wrong(
                    f"{name} and {file_name} are both set; keep one.", (name, file_name)
                )
            )
        else:
            given.texts[name] = text
    elif path is not None:
        given.sources[file_name] = source
        given.texts[file_name] = path
        try:
            given.texts[name] = read_secret(Path(path))
            given.sources[name] = f"file {path}"
        except ConfigurationError as error:
            given.wrong.append(given.find_wrong(f"{file_name}: {error}", (file_name,)))
    return text is not None or path is not None


def _nearest(name: str, known: Iterable[str]) -> str | None:
    return next(iter(get_close_matches(name, known, 1, cutoff=0.75)), None)


def _environment() -> Texts:
    return _texts(EnvSettingsSource(BaseSettings, env_ignore_empty=True).env_vars)


def _dotenv(given: SettingSources) -> Texts:
    """Return what ``.env`` says, each value as it stands there.

    Not by dotenv_values: that puts something else in the place of a ``${…}``, which a password may hold, and passes
    over what it cannot read; only a log that nobody has configured yet is told.
    """
    path = Path(DOTENV)
    try:
        if not path.is_file():
            return {}
        with path.open(encoding="utf-8-sig") as file:
            lines = list(parse_stream(file))
    except UnicodeDecodeError:
        sentence = "The file is not UTF-8 text."
    except OSError as error:
        sentence = f"The file cannot be read: {error.strerror}."
    else:
        if not (wrong := [str(_first_line(line.original)) for line in lines if line.error]):
            return _texts({line.key: line.value for line in lines if line.key is not None})
        # Not quoted: it may be a secret, in quotes that do not end. And nothing is taken: nobody knows what was meant.
        told = ", ".join(wrong[:MAX_WRONG_LINES]) + (" and more" if wrong[MAX_WRONG_LINES:] else "")
        sentence = (
            f"Line {told}: not of the form NAME=value, with quotes that end where there are any."
        )
    given.wrong.append(Problem(sentence, ((DOTENV, str(path.absolute())),)))
    return {}


def _first_line(original: Original) -> int:
    # What the parser calls a line begins with the blank ones above it.
    blank = original.string[: len(original.string) - len(original.string.lstrip())]
    return original.line + blank.count("\n")


def _texts(found: Mapping[str, str | None]) -> Texts:
    # tally_channels is as good as TALLY_CHANNELS: the environment's source gives all names in small letters.
    return {name.upper(): text for name, text in found.items() if text}


def read_secret(path: Path) -> str:
    """Return a secret's file, without the white space around it.

    Raises:
        ConfigurationError: it cannot be read, is too long, or empty; the sentence names it, and never quotes it.
    """
    if secret := read_text(path, MAX_SECRET_BYTES).strip():
        return secret
    raise ConfigurationError(f"the file {path} is empty.")


def read_text(path: Path, max_bytes: int) -> str:
    """Return the text of a file.

    Raises:
        ConfigurationError: it cannot be read, is no file, too long, or not UTF-8; the sentence names it, and never
            quotes it.
    """
    try:
        content = _read(path, max_bytes + 1)
    except OSError as error:
        raise ConfigurationError(
            f"{_shown(path)} cannot be read: {error.strerror or type(error).__name__}."
        ) from None
    except ValueError:  # a path with a NUL in it
        raise ConfigurationError("this is no path of a file.") from None
    if len(content) > max_bytes:
        raise ConfigurationError(f"the file {path} is longer than {max_bytes} bytes.")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ConfigurationError(f"the file {path} is not UTF-8 text.") from None


def _read(path: Path, size: int) -> bytes:
    with open(path, "rb", opener=_at_once) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(0, "it is not a file")
        return file.read(size)


def _shown(path: Path) -> str:
    # Where nothing is there, a text that does not look like a path may be the secret itself, in the wrong variable.
    is_path = (
        path.is_absolute()
        or os.path.lexists(path)
        or (len(path.parts) > 1 and path.parent.is_dir())
    )
    return (
        f"the file {path}"
        if is_path
        else "the file (not shown: nothing is there, and it may be the secret itself)"
    )


def _at_once(path: str, flags: int) -> int:
    # Whoever opens a pipe nobody writes to waits for ever. And it can be read once; these files are read anew.
    return os.open(path, flags | os.O_NONBLOCK)
