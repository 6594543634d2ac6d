"""Channels, types, values and names in their worst forms, and what may be seen of them."""

import json
import re
import unicodedata
from typing import Final

from worker.emulator import State

ROOM: Final = "room"
MESSAGE: Final = "17600000001728660"
FAKE: Final = '{"event":"fake","level":"error"}'
OBEYED: Final = (
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
"""Parts of the texts below that no terminal may get; our own colours differ."""
TEXTS: Final = (
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
NAMES: Final = (
    "a.\u202egnp",
    "a.\u2066\u200b",
    "a.[red]x",
    'a."quoted"',
    "a.{x}%s",
    f"a.{'x' * 85}",
)
"""Channels that PubNub accepts, under a wildcard."""
REFUSED_NAMES: Final = (
    "a.\x1b[5;35m",
    "a.b\nc",
    f"a.{FAKE}",
    "a.\u2028x",
    "a.\x9b5;35m",
    "a.\x00",
    "x" * 30_000,
)
OVERRIDES: Final = ("%sgnp", "b[bold]b")
"""Configured channels that are refused later."""
GROUP: Final = "g[red]x"
FOLLOWED: Final = {
    "TALLY_CHANNELS": ",".join((ROOM, "a.*", *OVERRIDES)),
    "TALLY_CHANNEL_GROUPS": GROUP,
}

OUR_OWN: Final = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
"""Our colours, and the cursor of a progress bar."""
TURNING: Final = frozenset({"RLO", "LRO", "RLE", "LRE", "PDF", "RLI", "LRI", "FSI", "PDI"})
"""Character classes that change the direction of text."""
LONGEST_LINE: Final = 15_000


def write(state: State) -> int:
    """Let users write all that; return how many events cannot be counted."""
    for channel in (ROOM, *NAMES):
        for text in TEXTS:
            state.add(channel, MESSAGE, text, text, text)
    known = {
        "type": "like",
        "value": "x",
        "actionTimetoken": "17600000002020754",
        "messageTimetoken": MESSAGE,
    }
    envelope = {"e": 3, "i": "mallory", "p": {"t": "17600000002110345", "r": 43}, "k": "sub-c-test"}
    malformed = [
        *(
            {**envelope, "c": name, "d": {"event": "added", "data": known}}
            for name in REFUSED_NAMES
        ),
        *({**envelope, "c": ROOM, "d": {"event": text, "data": known}} for text in TEXTS),
        *(
            {
                **envelope,
                "c": ROOM,
                "d": {"event": "added", "data": {**known, "messageTimetoken": text}},
            }
            for text in TEXTS
        ),
        {**envelope, "c": ROOM, "d": {"event": "added", "data": {**known, "value": "x" * 300_000}}},
        {
            **envelope,
            "c": ROOM,
            "d": {"event": "added", "data": {**known, "value": "\ud83d\x1b[5;35m"}},
        },
    ]
    for message in malformed:
        state.inject(ROOM, raw=json.dumps(message))
    return len(malformed)


def expect_tame(text: str, *, is_terminal: bool = False) -> None:
    """Expect nothing that a terminal would obey, except our own colours on a terminal."""
    for sequence in OBEYED:
        assert sequence not in text, ascii(text)
    if is_terminal:
        text = OUR_OWN.sub("", text).replace("\r", "")
    for character in set(text) - {"\n"}:
        assert unicodedata.category(character) not in {"Cc", "Zl", "Zp", "Cs"}, ascii(character)
        assert unicodedata.bidirectional(character) not in TURNING, ascii(character)


def expect_entries(text: str) -> None:
    """Expect one short JSON object a line, or a sentence of ours; none of a user."""
    for line in text.splitlines():
        assert len(line) < LONGEST_LINE
        if line.startswith("tally: "):
            continue
        entry = json.loads(line)
        assert {"event", "level", "timestamp"} <= entry.keys()
        assert entry["event"] != "fake"
