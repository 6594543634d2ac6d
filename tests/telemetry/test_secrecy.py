"""No entry quotes an error or a library; and no text of the worker is made of a secret."""

import ast
import logging
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, NoReturn

import aiohttp
import httpx
import pytest
import redis.exceptions
import structlog
from pubnub.exceptions import PubNubException
from pydantic import TypeAdapter, ValidationError
from yarl import URL

from worker.settings import FIELDS, SECRETS
from worker.telemetry.logging_bridge import Bridge
from worker.telemetry.logs import configure

WORKER: Final = Path(__file__).parents[2] / "worker"
CANARY: Final = "canary"
ADDRESS: Final = f"https://host/v2/subscribe?auth={CANARY}"


@pytest.fixture(params=["json", "console"])
def log(request: pytest.FixtureRequest) -> Iterator[Any]:
    """Log everything, in each format; give the next test an unconfigured log."""
    structlog.reset_defaults()
    configure(request.param, "debug")
    yield structlog.get_logger()
    structlog.reset_defaults()


class QuotingError(Exception):
    """A library's error, which quotes its argument wherever it can."""

    def __init__(self, what: str) -> None:
        super().__init__(what, {what: [what]})
        self.what = what
        self.add_note(what)

    def __str__(self) -> str:
        return self.what

    __repr__ = __str__


class QuotingOSError(OSError):
    """A library's, of a kind whose message usually speaks of the program."""


class QuotingRuntimeError(RuntimeError):
    """As above."""


def invalid() -> ValidationError:
    """Return pydantic's error, which quotes the value."""
    with pytest.raises(ValidationError) as error:
        TypeAdapter(int).validate_python(CANARY)
    return error.value


ERRORS: Final[dict[str, Callable[[], BaseException]]] = {
    "a key": lambda: KeyError(CANARY),
    "a value": lambda: ValueError(f"invalid literal: {CANARY!r}"),
    "a text": lambda: UnicodeDecodeError("utf-8", CANARY.encode(), 0, 1, CANARY),
    "a note": lambda: QuotingError(CANARY),
    "a model": invalid,
    "a group": lambda: ExceptionGroup(CANARY, [ValueError(CANARY), QuotingError(CANARY)]),
    "a group that says it": lambda: BaseExceptionGroup(CANARY, [KeyboardInterrupt(CANARY)]),
    "an exit": lambda: SystemExit(CANARY),
    "redis, a command": lambda: redis.exceptions.ResponseError(
        f"Command # 1 (HSET {CANARY}) of pipeline caused error"
    ),
    "redis, an address": lambda: redis.exceptions.ConnectionError(
        f"Error 111 connecting to redis://:{CANARY}@h"
    ),
    "aiohttp, a timeout": lambda: aiohttp.ConnectionTimeoutError(
        f"Connection timeout to host {ADDRESS}"
    ),
    "aiohttp, an address": lambda: aiohttp.InvalidURL(ADDRESS, CANARY),
    "aiohttp, an answer": lambda: aiohttp.ClientResponseError(
        aiohttp.RequestInfo(URL(ADDRESS), "GET", {}, URL(ADDRESS)),  # type: ignore[arg-type]
        (),
        message=CANARY,
    ),
    "httpx, a request": lambda: httpx.ConnectTimeout(CANARY, request=httpx.Request("GET", ADDRESS)),
    "httpx, a stream": lambda: httpx.StreamError(CANARY),
    "PubNub's SDK": lambda: PubNubException(errormsg=CANARY, status_code=400),
    "a kind of OSError": lambda: QuotingOSError(CANARY),
    "a kind of RuntimeError": lambda: QuotingRuntimeError(CANARY),
}


def fail(error: BaseException) -> NoReturn:
    """Raise it."""
    raise error


def caused(error: BaseException) -> BaseException:
    """Return an error that this one caused."""
    later = KeyError(CANARY)
    later.__cause__ = error
    return later


def handled(error: BaseException) -> BaseException:
    """Return an error that came while this one was handled."""
    later = KeyError(CANARY)
    later.__context__ = error
    return later


def raised(error: BaseException) -> BaseException:
    """Return the error with a traceback whose frame has local variables."""
    surroundings = {"what": CANARY, CANARY: error}
    try:
        fail(error)
    except BaseException as caught:
        assert surroundings
        return caught


@pytest.mark.parametrize("kind", ERRORS)
@pytest.mark.parametrize("place", [raised, caused, handled])
def test_no_entry_quotes_an_error(
    log: Any,
    capsys: pytest.CaptureFixture[str],
    kind: str,
    place: Callable[[BaseException], BaseException],
) -> None:
    """As a traceback and as a field, alone and among others, by itself and as a cause."""
    error = place(ERRORS[kind]())

    log.error("it_fails", exc_info=error)
    log.error("it_fails", exc_info=(type(error), error, error.__traceback__))
    log.warning("it_fails", error=error, errors=[error, {"it": error}, (error,)])
    try:
        fail(error)
    except BaseException:
        log.exception("it_fails")

    written = capsys.readouterr().err
    assert written.count("it_fails") == 4
    assert type(error).__qualname__ in written
    assert CANARY not in written


def test_a_traceback_shows_no_values(log: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """It shows lines of code, not the values of their variables."""
    secret = CANARY[::-1]
    try:
        sys.intern(secret)[len(secret)]
    except IndexError:
        log.exception("it_fails")

    assert secret not in capsys.readouterr().err


class Message:
    """What a library logs instead of text."""

    def __str__(self) -> str:
        return CANARY

    __repr__ = __str__


def with_an_object(logger: logging.Logger) -> None:
    """Log an object that has a text."""
    logger.error(Message())
    logger.error(Message(), 1)


def with_an_error(logger: logging.Logger) -> None:
    """Log an error with its stack and more fields."""
    try:
        fail(QuotingError(CANARY))
    except QuotingError:
        logger.exception("lost", stack_info=True, extra={"url": CANARY})
        logger.error("lost", exc_info=True, stack_info=True)


def with_a_record(logger: logging.Logger) -> None:
    """Log a record that has everything."""
    record = logging.LogRecord(
        "library", logging.ERROR, __file__, 1, CANARY, None, None, CANARY, CANARY
    )
    record.__dict__ |= dict.fromkeys(
        ("exc_text", "threadName", "processName", "taskName", "module", "url"), CANARY
    )
    logger.handle(record)


@pytest.mark.usefixtures("log")
@pytest.mark.parametrize("speak", [with_an_object, with_an_error, with_a_record])
def test_no_entry_quotes_a_library(
    capsys: pytest.CaptureFixture[str], speak: Callable[[logging.Logger], None]
) -> None:
    """Wherever in its record the text stands; ``test_logs`` has templates."""
    logger = logging.Logger("library")
    logger.addHandler(Bridge())

    speak(logger)

    written = capsys.readouterr().err
    assert written.count("library_speaks") in {1, 2}
    assert CANARY not in written


def test_a_quoted_word_would_be_found(log: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """As a field, as the name of a library, in a message of the program."""
    log.info("event", channel=CANARY)
    (logger := logging.Logger(CANARY)).addHandler(Bridge())
    logger.error("lost")
    log.error("it_fails", exc_info=RuntimeError(CANARY))

    written = capsys.readouterr().err.splitlines()
    assert sum(CANARY in line for line in written) == 3


FIELDS_OF_SECRETS: Final = {FIELDS[name] for name in SECRETS}
ON_PURPOSE: Final = {
    "demo/processes.py": {"redis_url"},  # the demo's own Redis, which has no password
    "source/endpoints.py": {"subscribe_key"},  # the address of a request
    "store/ownership.py": {"subscribe_key"},  # enough of a key to know it by
}
WRITERS = {"echo", "print", "say", "log", "repr", "str"}
WRITERS |= {"debug", "info", "warning", "error", "exception"}


def spoken_secrets(source: str) -> set[str]:
    """Return the secrets that a program makes into text: in a text, or as an argument."""
    parts: list[ast.AST] = []
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.FormattedValue():
                parts.append(node.value)
            case ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name)) if (
                name in WRITERS or name.endswith("Error")
            ):
                parts += [*node.args, *(keyword.value for keyword in node.keywords)]
    nodes = [node for part in parts for node in ast.walk(part)]
    names = {getattr(node, "attr", "") or getattr(node, "id", "") for node in nodes}
    return {name for name in names if name.lstrip("_") in FIELDS_OF_SECRETS}


def test_no_text_is_made_of_a_secret() -> None:
    """No sentence, no entry and no error of the worker."""
    found = {
        path.relative_to(WORKER).as_posix(): secrets
        for path in WORKER.rglob("*.py")
        if (secrets := spoken_secrets(path.read_text(encoding="utf-8")))
    }
    assert found == ON_PURPOSE


@pytest.mark.parametrize(
    "source",
    [
        "log.info('event', url=settings.redis_url)",
        "raise ConfigurationError('no ' + auth_token)",
        "text = f'{self._secret_key!r} is wrong'",
        "typer.echo(str(keyset.subscribe_key))",
    ],
)
def test_a_text_made_of_a_secret_would_be_found(source: str) -> None:
    """In a log, an error, a text, on a terminal."""
    assert spoken_secrets(source)
