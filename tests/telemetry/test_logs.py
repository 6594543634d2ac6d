"""Entries are one printable line each, bounded, and quote no error that others worded."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path, PurePath
from typing import Any

import pytest
import structlog

from worker.errors import ConfigurationError, ExitCode
from worker.telemetry.logs import configure
from worker.telemetry.text import escape, unquoted
from worker.telemetry.throttled_warning import REPEAT_SECONDS, ThrottledWarning

CANARY = "canary"


@pytest.fixture(autouse=True)
def own_configuration() -> Iterator[None]:
    """Give the next test an unconfigured log."""
    structlog.reset_defaults()
    yield
    structlog.reset_defaults()


def test_json_is_json(capsys: pytest.CaptureFixture[str]) -> None:
    """One object a line, with event, level and time; nothing of an entry below the level."""
    configure("json")

    structlog.get_logger().warning("gap", channels=2)

    configure("json", "warning")
    structlog.get_logger().info("quiet")

    entry = json.loads(capsys.readouterr().err)
    assert (entry["event"], entry["level"], entry["channels"]) == ("gap", "warning", 2)
    assert entry["timestamp"].endswith("Z")


def test_printable_text_stays_as_it_is() -> None:
    """Emoji, and letters of any script."""
    assert escape("👍 ünï 日本") == "👍 ünï 日本"


def test_a_lasting_failure_is_logged_once_a_minute() -> None:
    """Its end is logged once, with the number of failures."""
    now = 0.0
    with structlog.testing.capture_logs() as entries:
        warning = ThrottledWarning(structlog.get_logger(), "away", "back", lambda: now)
        for second in range(int(REPEAT_SECONDS) * 2 + 1):
            now = float(second)
            warning.failing(reason="x")
        warning.recovered()
        warning.recovered()

    assert [entry["event"] for entry in entries] == ["away", "away", "away", "back"]
    assert entries[-1]["failures"] == 121


HOSTILE_TEXTS = [
    "\x00\x07\x08\x1b[31mred\x1b[0m",
    "\x1b]8;;http://evil/\x1b\\link\x1b]8;;\x1b\\",
    "\x1b]52;c;cm0gLXJm\x07",
    "a\nb\r\nc\x0b\x0c\x85d\u2028e\u2029f",
    "\x9b31m\x90q\x9c",
    "\u202egnp.exe\u2066\u2069\u200e\u061c\ufeff\u200b",
    "\ud83d\udc4d \ud800",
    '{"event":"fake","level":"error"}\n{"event":"fake"}',
]
"""Text that a terminal would obey, or that a reader of lines would take for two entries."""


def written(capsys: pytest.CaptureFixture[str]) -> str:
    """Return what was logged, in printable lines."""
    text = capsys.readouterr().err
    for line in text.removesuffix("\n").split("\n"):
        assert line.isprintable(), ascii(line)
    assert len(text.splitlines()) == text.count("\n")
    return text


class Wordless:
    """Has no text."""

    def __str__(self) -> str:
        raise KeyError("no words")


@pytest.mark.parametrize("format", ["auto", "json", "console"])
@pytest.mark.parametrize("text", HOSTILE_TEXTS)
def test_hostile_text_is_escaped_at_any_depth(
    format: str, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """In lists, tuples, sets, mappings and their keys, errors, paths, bytes."""
    configure(format)

    structlog.get_logger().warning(
        "event",
        name=text,
        names=[text, (text, [text, {text: text}])],
        some=frozenset({text}),
        causes={text: {text: [text]}},
        error=RuntimeError(text),
        path=PurePath(text),
        raw=text.encode("utf-8", "surrogatepass"),
    )

    assert written(capsys).count("\n") == 1


@pytest.mark.parametrize("format", ["json", "console"])
@pytest.mark.parametrize(
    "value",
    [
        "x" * 30_000,
        "\U0001f44d" * 30_000,
        "\x1b" * 30_000,
        [f"channel-{number}" for number in range(10_000)],
        ["x" * 30_000] * 10_000,
        {f"channel-{number}": "x" * 30_000 for number in range(10_000)},
        [[[["x" * 300] * 300] * 300]],
        10**4_000,
        10**5_000,
        b"x" * 30_000,
        ValueError("x" * 30_000),
        RuntimeError("x" * 30_000),
    ],
    ids=lambda value: type(value).__name__,
)
def test_no_value_makes_a_long_line(
    format: str, value: object, capsys: pytest.CaptureFixture[str]
) -> None:
    """However long a name is, and however many there are."""
    configure(format)

    structlog.get_logger().warning("event", value=value)

    assert len(written(capsys)) < 10_000


def test_a_cut_value_says_what_is_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    """Of many items how many more, of a text how long it is."""
    configure("json")

    structlog.get_logger().info(
        "event", names=[str(each) for each in range(30)], text="x" * 501, few=[1, 2], some={3}
    )

    entry = json.loads(capsys.readouterr().err)
    assert entry["names"] == [*(str(each) for each in range(20)), "… 10 more"]
    assert entry["text"] == "x" * 500 + "… (501 characters)"
    assert (entry["few"], entry["some"]) == ([1, 2], [3])


def test_every_value_makes_valid_json(capsys: pytest.CaptureFixture[str]) -> None:
    """Also numbers that JSON lacks, objects without text, and enums."""
    configure("json")

    structlog.get_logger().info(
        "event", a=float("nan"), b=float("inf"), c=Wordless(), d=10**5_000, e=ExitCode.DONE
    )

    entry = json.loads(
        capsys.readouterr().err, parse_constant=lambda name: pytest.fail(f"{name} is no JSON")
    )
    assert (entry["a"], entry["b"], entry["e"]) == ("nan", "inf", 0)
    assert entry["c"] == "something of type Wordless"


def poisoned(depth: int) -> None:
    """Fail deep in the worker, over text that others sent."""
    if depth:
        return poisoned(depth - 1)
    try:
        int(f"{CANARY}\n\x1b[31m")
    except ValueError as error:
        raise KeyError(CANARY) from error


def test_a_message_of_the_worker_is_written(capsys: pytest.CaptureFixture[str]) -> None:
    """So is one that speaks of the program; of a group, the errors it holds."""
    configure("json")
    held = [
        ConfigurationError("Set it.\x1b[31m"),
        AttributeError("no such thing"),
        ValueError("canary"),
    ]
    structlog.get_logger().error("event", exc_info=ExceptionGroup("all", held))

    lines = json.loads(capsys.readouterr().err)["exception"].split("\n")
    assert "worker.errors.ConfigurationError: Set it.\\x1b[31m" in lines
    assert "AttributeError: no such thing" in lines
    assert "ValueError" in lines


def test_a_traceback_is_bounded(capsys: pytest.CaptureFixture[str]) -> None:
    """However deep the stack, however long the chain, even in a circle."""
    configure("json")
    error: Exception = RuntimeError("x" * 30_000)
    for _ in range(100):
        later = RuntimeError("later")
        later.__cause__ = error
        error = later
    circle, back = OSError("a"), OSError("b")
    circle.__context__, back.__context__ = back, circle
    structlog.get_logger().error("event", exc_info=error)
    structlog.get_logger().error("event", exc_info=circle)
    try:
        poisoned(500)
    except KeyError:
        structlog.get_logger().exception("event")

    *chains, deep = written(capsys).splitlines()
    assert all(len(line) < 20_000 for line in (*chains, deep))
    assert "in poisoned" in deep
    assert "KeyError" in deep
    assert "It was caused by:" in deep
    assert "ValueError" in deep


def test_a_sentence_ends_at_its_first_quotation_mark() -> None:
    """Others wrote what stands behind it."""
    assert unquoted("type has 5 bytes") == "type has 5 bytes"
    assert unquoted("the event is 'canary', neither added nor removed") == "the event is …"
    assert unquoted('it is "can\'ary"') == "it is …"
    assert unquoted("unknown command `x`") == "unknown command …"


def as_process(code: str, **streams: Any) -> subprocess.CompletedProcess[str]:
    """Run a program that configures its log as a worker does."""
    begin = "from worker.telemetry.logs import configure\nconfigure()\n"
    return subprocess.run(
        [sys.executable, "-I", "-X", "utf8", "-W", "default", "-c", begin + code],
        encoding="utf-8",
        check=False,
        **({"capture_output": True} | streams),
    )


LIBRARIES = {
    "a task nobody awaits": (
        """
import asyncio
async def fail(): raise ValueError("canary")
async def main():
    task = asyncio.create_task(fail(), name="canary")
    await asyncio.sleep(0)
    del task
asyncio.run(main())
import gc; gc.collect()
""",
        {"event": "library_speaks", "level": "error", "library": "asyncio"},
    ),
    "a callback that fails": (
        """
import asyncio
def fail(what): raise KeyError(what)
async def main():
    asyncio.get_running_loop().call_soon(fail, "canary")
    await asyncio.sleep(0)
asyncio.run(main())
""",
        {"event": "library_speaks", "level": "error", "library": "asyncio"},
    ),
    "a library's error": (
        """
import logging
logging.getLogger("redis.connection").error("lost %s", "canary")
logging.getLogger("redis.connection").info("canary")
""",
        {
            "event": "library_speaks",
            "level": "error",
            "library": "redis.connection",
            "template": "lost %s",
        },
    ),
    "a library's text that was filled in": (
        """
import logging
logging.getLogger("some.library").warning(f"lost {'can' + 'ary'}\\n{{}}")
""",
        {"event": "library_speaks", "level": "warning", "library": "some.library"},
    ),
    "an aiohttp server that meets garbage": (
        """
import asyncio
from aiohttp import web
async def main():
    async def answer(request): raise ValueError("canary")
    server = web.Server(answer)
    listener = await asyncio.get_running_loop().create_server(server, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*listener.sockets[0].getsockname())
    writer.write(b"GET / HTTP/1.1\\r\\nHost: canary\\r\\nConnection: close\\r\\n\\r\\n")
    await reader.read()
    writer.close()
    listener.close()
    await server.shutdown(1)
asyncio.run(main())
""",
        {"event": "library_speaks", "level": "error", "library": "aiohttp.server"},
    ),
    "a warning": (
        "import warnings\nwarnings.warn('mind\\nthat', RuntimeWarning)",
        {"event": "warned", "level": "warning", "kind": "RuntimeWarning", "words": "mind\\nthat"},
    ),
    "what cannot be raised": (
        """
class Broken:
    def __del__(self): raise ValueError("canary")
Broken()
""",
        {"event": "not_raised", "level": "error", "where": "Broken.__del__"},
    ),
}


MARK = "--- "


@pytest.fixture(scope="module")
def lines_of() -> dict[str, list[str]]:
    """Return library → its lines, all in one process that configured its log."""
    turns = [
        f"print({MARK + name!r}, file=sys.stderr)\nexec({code!r}, {{}})\n"
        for name, (code, _) in LIBRARIES.items()
    ]
    ended = as_process("import sys\n" + "".join(turns))
    assert ended.returncode == 0
    before, *parts = ended.stderr.split(MARK)
    assert before == ""
    return {name: lines for name, *lines in map(str.splitlines, parts)}


@pytest.mark.parametrize("name", LIBRARIES)
def test_libraries_log_in_entries(name: str, lines_of: dict[str, list[str]]) -> None:
    """So does the interpreter; what fills their templates is left out."""
    _, expected = LIBRARIES[name]
    (line,) = lines_of[name]
    entry = json.loads(line)
    assert expected.items() <= entry.items()
    assert entry["timestamp"].endswith("Z")
    assert "canary" not in json.dumps(
        {key: value for key, value in entry.items() if key != "exception"}
    )


def test_an_unwritable_log_stops_no_work() -> None:
    """The disk behind standard error may be full."""
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("this system has no /dev/full")
    with full.open("w") as stream:
        ended = as_process(
            "import structlog\nstructlog.get_logger().info('lost')\nprint('went on', flush=True)",
            capture_output=False,
            stdout=subprocess.PIPE,
            stderr=stream,
        )

    assert ended.stdout == "went on\n"
