"""Strangers choose channels, types, values and names: none of it gets a line of its own, or is obeyed by a terminal."""

import asyncio
import json
import os
import re
import subprocess
import sys
import unicodedata
from contextlib import suppress
from dataclasses import dataclass

import pytest
from aiohttp import web

from tests.end_to_end.processes import MESSAGE, OURS, ROOM, Stage, wait_until

FAKE = '{"event":"fake","level":"error"}'
OBEYED = (
    "\x1b[5;35m",
    "\x1b]52;c;",
    "\x1b]8;;",
    "\x1b[6n",
    "\x9b5",
    "\u202e",
    "\u2066",
    "\u2028",
    "\x00",
    "\x07",
    "\r\r",
)
"""What no terminal may see of what strangers wrote; our own colours are others."""
TEXTS = (
    "\x1b[5;35mblink\x1b[6n",
    "\x1b]8;;http://x/\x1b\\link\x1b]8;;\x1b\\",
    "\x1b]52;c;cm0=\x07",
    f"a\n{FAKE}\nb\r\r\x0b\x0c\x85",
    "\x9b5;35m\x90q\x9c",
    "\u202egnp.exe\u2066\u2069\u200e\u061c\u200b\ufeff",
    "a\u2028b\u2029c",
    "nul\x00nul",
    "[red]markup[/red] [link=x]y[/link] %s {x} \\n",
    FAKE,
    "x" * 1_900,
)
NAMES = ("a.\u202egnp", "a.\u2066\u200b", "a.[red]x", 'a."quoted"', "a.{x}%s", f"a.{'x' * 85}")
"""Channels that PubNub takes, met under a wildcard."""
REFUSED_NAMES = ("a.\x1b[5;35m", "a.b\nc", f"a.{FAKE}", "a.\u2028x", "a.\x9b5;35m", "a.\x00", "x" * 30_000)
OUR_OWN = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
"""Colours, and the cursor of a progress bar."""
LONGEST_LINE = 15_000


@dataclass(frozen=True)
class Ended:
    """What a command wrote to a terminal, and how it ended."""

    code: int
    text: str


async def on_terminal(stage: Stage, *arguments: str, seconds: float = 40, **settings: str) -> Ended:
    """Run a command whose output is a terminal; one that does not end is asked to after a while."""
    ours, theirs = os.openpty()
    bare = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
    process = subprocess.Popen(  # noqa: ASYNC220 - a moment; asyncio's would give it no terminal
        [sys.executable, "-m", "worker", *arguments],
        cwd=stage.folder,
        env={**bare, "TERM": "xterm-256color", "COLUMNS": "200", **stage.settings, **settings},
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    told = bytearray()

    def read() -> None:
        with suppress(OSError):  # the last one has closed the terminal
            while some := os.read(ours, 65536):
                told.extend(some)

    reading = asyncio.create_task(asyncio.to_thread(read))
    try:
        await asyncio.wait([reading], timeout=seconds)
        process.terminate()
        await asyncio.wait([reading], timeout=20)
        return Ended(await asyncio.to_thread(process.wait, 20), told.decode(errors="replace"))
    finally:
        process.kill()
        process.wait()
        await reading
        os.close(ours)


def expect_tame(text: str, *, is_terminal: bool = False) -> None:
    """Expect nothing that a terminal would obey; on a terminal, nothing but what we do ourselves."""
    for each in OBEYED:
        assert each not in text, ascii(text)
    if is_terminal:
        text = OUR_OWN.sub("", text).replace("\r", "")
    for character in set(text) - {"\n"}:
        assert unicodedata.category(character) not in {"Cc", "Zl", "Zp", "Cs"}, ascii(character)
        assert unicodedata.bidirectional(character) not in {
            "RLO",
            "LRO",
            "RLE",
            "LRE",
            "PDF",
            "RLI",
            "LRI",
            "FSI",
            "PDI",
        }


def expect_entries(text: str) -> None:
    """Expect one JSON object a line, complete, none of them a stranger's, none of them long; or a sentence of ours."""
    for line in text.splitlines():
        assert len(line) < LONGEST_LINE
        if line.startswith("tally: "):
            continue
        entry = json.loads(line)
        assert {"event", "level", "timestamp"} <= entry.keys()
        assert entry["event"] != "fake"


def write(stage: Stage, who: str = "") -> int:
    """Let strangers write all that; return how many of their events cannot be counted."""
    for channel in (ROOM, *NAMES):
        for text in TEXTS:
            stage.state.add(channel, MESSAGE, text, text, text + who)
    known = {"type": "like", "value": "x", "actionTimetoken": "17600000002020754", "messageTimetoken": MESSAGE}
    told = {"e": 3, "i": "mallory", "p": {"t": "17600000002110345", "r": 43}, "k": "sub-c-test"}
    malformed = [
        *({**told, "c": name, "d": {"event": "added", "data": known}} for name in REFUSED_NAMES),
        *({**told, "c": ROOM, "d": {"event": text, "data": known}} for text in TEXTS),
        *({**told, "c": ROOM, "d": {"event": "added", "data": {**known, "messageTimetoken": text}}} for text in TEXTS),
        {**told, "c": ROOM, "d": {"event": "added", "data": {**known, "value": "x" * 300_000}}},
        {**told, "c": ROOM, "d": {"event": "added", "data": {**known, "value": "\ud83d\x1b[5;35m"}}},
    ]
    for message in malformed:
        stage.state.inject(ROOM, raw=json.dumps(message))
    return len(malformed)


@pytest.fixture
async def haunted(stage: Stage) -> Stage:
    """Set a stage where strangers have written, and a worker has counted, in JSON and at the loudest level."""
    stage.settings |= {
        "TALLY_CHANNELS": "room,a.*,\u202egnp,[bold]b",
        "TALLY_CHANNEL_GROUPS": "g\u202ex",
        "TALLY_LOG_LEVEL": "debug",
        "TALLY_LOG_FORMAT": "json",
    }
    stage.state.groups.add("g\u202ex", ["in\u2066side"])
    worker = await stage.follow()
    malformed = write(stage)
    await stage.settles(40)

    async def are_quarantined() -> bool:
        return len(await stage.quarantine()) >= malformed

    await wait_until(are_quarantined, what=lambda: worker.err[-3000:])
    stage.state.refuse(["\u202egnp", "[bold]b"], ["g\u202ex"])
    await wait_until(lambda: bool(worker.entries("pubnub_refused")), what=lambda: worker.err[-3000:])
    stage.state.refuse()
    assert await worker.stopped() == 0
    expect_entries(worker.err)
    expect_tame(worker.err)
    # One event, one entry: however many lines it would like to be.
    assert len(worker.entries("quarantined")) == malformed
    # What verify and doctor find fault with.
    stage.state.add(ROOM, MESSAGE, *["\x1b[5;35mblink\x1b[6n\n"] * 3, published=False)
    await stage.redis.hset(f"tally:{{{ROOM}}}:counts:{MESSAGE}", f"{TEXTS[0]}:{TEXTS[3]}", 7)
    return stage


READERS = [
    ("show", ROOM, MESSAGE),
    ("explain", ROOM, MESSAGE),
    ("explain", NAMES[0], MESSAGE),
    ("doctor",),
    ("config",),
    ("verify",),
    ("show", "\x1b[5;35m\u202e", MESSAGE),
    ("show", ROOM, "\x1b[5;35m"),
    ("backfill", "a\nb"),
    ("verify", "\u202e", "\x1b[5;35m"),
    ("backfill", "--since", "\x1b[5;35m\n"),
    ("emulator", "--fault", "\x1b[5;35m=1"),
]
WRITERS = [("backfill",), ("reconcile",)]


@pytest.mark.timeout(400)
@pytest.mark.parametrize("form", ["json", "console"])
async def test_no_command_lets_strangers_speak(haunted: Stage, form: str) -> None:
    """In a pipe: a line of JSON each, or lines without a control character; ``--json`` is ASCII."""
    before = len(haunted.children)
    as_json = [(*arguments, "--json") for arguments in READERS[:6]]
    for wave in ([*READERS, *as_json] if form == "json" else READERS[:6], WRITERS[:1], WRITERS[1:]):
        for arguments in wave:
            haunted.start(*arguments, TALLY_LOG_FORMAT=form)
        for child in haunted.children[before:]:
            await child.ended(200)
    for child in haunted.children[before:]:
        assert "Traceback" not in child.out + child.err
        expect_tame(child.out)
        expect_tame(child.err)
        assert not any(line.startswith('{"event":"fake"') for line in child.err.splitlines())
        if form == "json":
            expect_entries(child.err)
        if child.out.startswith("{") and "--json" in str(child.process.args):
            assert json.loads(child.out)
            assert child.out.isascii()


@pytest.mark.timeout(400)
async def test_no_terminal_obeys_strangers(haunted: Stage) -> None:
    """On a terminal: our own colours and bars, and nothing else but text."""
    haunted.settings["TALLY_LOG_FORMAT"] = "auto"
    for wave in (READERS[:7], WRITERS):
        ended = await asyncio.gather(*(on_terminal(haunted, *arguments) for arguments in wave))
        for each in ended:
            expect_tame(each.text, is_terminal=True)
            assert "Traceback" not in each.text
    haunted.state.refuse(["\u202egnp", "[bold]b"])
    write(haunted, who="again")
    running = await on_terminal(haunted, "run", seconds=10)
    expect_tame(running.text, is_terminal=True)
    assert "worker_starts" in running.text
    assert "pubnub_refused" in running.text


@pytest.mark.parametrize("status", [403, 500])
async def test_pubnubs_own_words_are_only_words(stage: Stage, status: int) -> None:
    """An error's text with control sequences, thousands of names refused: a short line each."""
    words = "".join(TEXTS) * 20
    names = [f"{text}{number}" for number in range(2_000) for text in TEXTS[:3]]

    async def answer(_request: web.BaseRequest) -> web.Response:
        refused = {"channels": [ROOM, *names], "channel-groups": names}
        return web.json_response({"status": status, "message": words, "error": True, "payload": refused}, status=status)

    server = web.Server(answer)
    listener = await asyncio.get_running_loop().create_server(server, "127.0.0.1", 0)
    settings = {
        "PUBNUB_ORIGIN": f"127.0.0.1:{listener.sockets[0].getsockname()[1]}",
        "TALLY_CHANNELS": ",".join([ROOM, *(f"{'y' * 80}{number}" for number in range(200))]),
        "TALLY_LOG_LEVEL": "debug",
    }
    try:
        worker = stage.start("run", **settings)
        doctor = await stage.do("doctor", **settings)
        said = "pubnub_refused" if status == 403 else "pubnub_unreachable"
        await wait_until(lambda: bool(worker.entries(said)), what=lambda: worker.err[-3000:])
        await worker.stopped()
    finally:
        listener.close()
        await server.shutdown(1)
    expect_entries(worker.err)
    expect_tame(worker.err)
    expect_tame(doctor.out)
    assert max(map(len, doctor.out.splitlines())) < LONGEST_LINE
