"""Lists of names in another syntax are refused, with the right form."""

from pathlib import Path

import pytest

from tests.settings.given import CANARY, Give, refused
from worker.errors import ConfigurationError
from worker.settings import Settings
from worker.settings.name_list import NameListError, read_names

LISTS = ("TALLY_CHANNELS", "TALLY_CHANNEL_GROUPS", "TALLY_TYPES", "TALLY_IGNORED_TYPES")
ENGLAND = "\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f"
"""The tags behind a flag."""
WRONG = {
    '["room","news"]': ("[ before a name", "room,news"),
    "[room, news]": ("[ before a name", "room,news"),
    '"room"': ('" before a name', "room"),
    '"room,news"': ('" before a name', "room,news"),
    'room"': ('" behind a name', "room"),
    "['reaction']": ("[ before a name", "reaction"),
    "'reaction receipt'": ("' before a name", "reaction,receipt"),
    "'room,news'": ("' before a name", "room,news"),
    "’room’": ("’ before a name", "room"),
    "{'room','news'}": ("{' before a name", "room,news"),
    "room,'": ("' before a name", "room"),
    "“room”": ("“ before a name", "room"),
    '{"room","news"}': ('" behind a name', "room,news"),
    '("room", "news")': ("( before a name", "room,news"),
    "{room,news}": ("{ before a name", "room,news"),
    "- room": ("- before a name", "room"),
    "- room\n- news": ("- before a name", "room,news"),
    "room news": ("white space (U+0020 SPACE) in a name", "room,news"),
    "room\nnews": ("white space (U+000A control character) in a name", "room,news"),
    "room\u200b": ("the invisible character U+200B ZERO WIDTH SPACE", "room"),
    "room,\ufeffnews": ("the invisible character U+FEFF ZERO WIDTH NO-BREAK SPACE", "room,news"),
    "\u00a0room": ("white space (U+00A0 NO-BREAK SPACE) in a name", "room"),
    "ro\u200dom": ("the invisible character U+200D ZERO WIDTH JOINER", "room"),
    f"room{ENGLAND}": ("the invisible character U+E0067 TAG LATIN SMALL LETTER G", "room"),
    "🏴\U000e0067": ("the invisible character U+E0067 TAG LATIN SMALL LETTER G", "🏴"),
    "room\x07": ("the invisible character U+0007 control character", "room"),
    "[]": ("[ before a name", "room,news"),
    "[" + "room," * 99: ("[ before a name", "room,news"),
}
"""Text → what is found, and the right form."""


@pytest.mark.parametrize("name", LISTS)
@pytest.mark.parametrize("text", WRONG, ids=ascii)
def test_a_setting_in_another_syntax_is_refused(give: Give, name: str, text: str) -> None:
    """The sentence names the setting, what was found, and the right form."""
    found, right_form = WRONG[text]
    give(**{name: text})

    (line,) = refused()

    assert line.startswith(f"{name}: {found}. Write {name}={right_form}: commas between the names")
    assert line.endswith(f"({name}: environment)")


@pytest.mark.parametrize(
    "name",
    [
        *("room[1]", "bob's", "dogs'", "'tis", "rock-n’", "’90s"),
        *(
            "room;news",
            "a|b",
            "{a}",
            "-a",
            "a.*",
            "c#",
            "rock&roll",
            "{a}%",
            "}{",
            "دانش\u200cآموز",
        ),
        *("👩\u200d🚀", "❤\ufe0f\u200d🔥", "🏃🏽\u200d♂\ufe0f\u200d➡\ufe0f", f"🏴{ENGLAND}!"),
    ],
)
def test_names_of_users_are_accepted(name: str) -> None:
    """Brackets and quotes inside a name, and joiners where they belong to the writing."""
    assert read_names(f" {name} ,b\r\n") == (name, "b")


@pytest.mark.parametrize("text", WRONG, ids=ascii)
def test_the_right_form_is_accepted(text: str) -> None:
    """Whatever the refusal says to write."""
    with pytest.raises(NameListError) as error:
        read_names(text)
    assert ",".join(read_names(error.value.right_form)) == error.value.right_form


def test_a_file_may_begin_and_end_with_an_apostrophe(tmp_path: Path) -> None:
    """They are of two names, and no quotes around a list."""
    path = tmp_path / "channels"
    path.write_text("'tis\ndogs'", "utf-8")

    settings = Settings.model_validate({"TALLY_CHANNELS_FILE": str(path)})

    assert settings.all_channels() == ("'tis", "dogs'")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ('["room", "canary"]', "line 1: [ before a name"),
        ('[\n  "room",\n  "canary"\n]\n', "line 1, 2, 3, 4: [ before a name"),
        ("room\n'canary'\n", "line 2: ' before a name"),
        ("# ours\n- canary\n", "line 2: - before a name"),
        ("room\ncanary\u200b\n", "line 2: the invisible character U+200B ZERO WIDTH SPACE"),
        ("room\n\ufeffcanary\n", "line 2: the invisible character U+FEFF ZERO WIDTH NO-BREAK"),
        ("room\n\u00a0canary\n", "line 2: white space (U+00A0 NO-BREAK SPACE) in a name"),
    ],
)
def test_a_file_in_another_syntax_is_refused(tmp_path: Path, content: str, reason: str) -> None:
    """The sentence names the file, the lines and the right form. It does not quote the names."""
    path = tmp_path / "channels"
    path.write_text(content, "utf-8")
    settings = Settings.model_validate({"TALLY_CHANNELS_FILE": str(path)})

    with pytest.raises(ConfigurationError) as error:
        settings.all_channels()

    assert str(error.value).startswith(f"TALLY_CHANNELS_FILE: the file {path}, {reason}")
    assert "Write one name a line, such as room, or room,news:" in str(error.value)
    assert CANARY not in str(error.value)
