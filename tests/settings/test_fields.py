"""Settings: where each comes from, and what may stand there."""

import os
from pathlib import Path

import pytest

from worker.errors import ConfigurationError
from worker.settings import FIELDS, SECRETS, Settings, load
from worker.settings.address import Address
from worker.settings.channel_list import MAX_LIST_BYTES
from worker.settings.env_example import NEEDED, env_example
from worker.settings.sources import MAX_SECRET_BYTES

CANARY = "canary"


def test_lists_are_comma_separated_text(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blanks around a name are nobody's; an empty value is no value."""
    monkeypatch.setenv("TALLY_CHANNELS", " a, b ,,c.* ")
    monkeypatch.setenv("TALLY_IGNORED_TYPES", "")
    settings = load()
    assert settings.channels == ("a", "b", "c.*")
    assert settings.ignored_types == ("edited", "deleted", "threadRootId")


def test_a_file_gives_what_the_environment_does_not(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The environment goes first; other people's lines are left alone."""
    (tmp_path / ".env").write_text(
        "TALLY_CHANNELS=file\nTALLY_NAMESPACE=file\nOTHER=x\n", encoding="utf-8"
    )
    monkeypatch.setenv("TALLY_NAMESPACE", "environment")
    settings = load()
    assert (settings.channels, settings.namespace) == (("file",), "environment")


def test_all_wrong_settings_are_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each by its name, with what it may be; a secret's value is not shown."""
    monkeypatch.setenv("PUBNUB_TLS", "maybe")
    monkeypatch.setenv("TALLY_LOG_FORMAT", "xml")
    monkeypatch.setenv("TALLY_HISTORY_RATE", "0")
    monkeypatch.setenv("TALLY_SETTLE_SECONDS", "0.09")
    monkeypatch.setenv("PUBNUB_SECRET_KEY", "canary secret")
    monkeypatch.setenv("PUBNUB_ORIGIN", "https://ps.pndsn.com/")

    with pytest.raises(ConfigurationError) as refused:
        load()

    told = str(refused.value)
    names = ("PUBNUB_TLS", "TALLY_LOG_FORMAT", "TALLY_HISTORY_RATE", "TALLY_SETTLE_SECONDS")
    for name in (*names, "PUBNUB_SECRET_KEY", "PUBNUB_ORIGIN"):
        assert f"\n  {name}: " in told
    assert "'auto', 'json' or 'console'" in told
    assert "canary" not in told
    assert told.count("(environment)") == 6


@pytest.mark.parametrize("key", ["sub-c-1b2c3d", "demo", "mySubscribeKey"])
def test_a_good_key_is_kept(monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    """Letters, digits, dashes."""
    monkeypatch.setenv("PUBNUB_SUBSCRIBE_KEY", key)
    assert load().subscribe_key == key


@pytest.mark.parametrize("key", ["sub c", "sub/c", "sub-c-…", "a?b"])
def test_a_malformed_key_is_refused(monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    """It would change the meaning of a URL."""
    monkeypatch.setenv("PUBNUB_SUBSCRIBE_KEY", key)
    with pytest.raises(ConfigurationError, match="PUBNUB_SUBSCRIBE_KEY"):
        load()


def test_a_file_that_is_no_text_is_named(tmp_path: Path) -> None:
    """Not a traceback."""
    (tmp_path / ".env").write_bytes(b"TALLY_CHANNELS=\xff\xfe")
    with pytest.raises(ConfigurationError, match=r"\.env"):
        load()


@pytest.mark.parametrize(
    ("content", "lines"),
    [
        ("TALLY_TYPES=a\nTALLY_NAMESPACE: canary\n", "2"),
        ("\n# ours\n\n\nPUBNUB_AUTH_TOKEN='canary\nTALLY_TYPES=a\n\nTALLY_NAMESPACE: a\n", "5, 8"),
        ('REDIS_URL="redis://:canary@h\nTALLY_TYPES=a', "1"),
        ("TALLY_TYPES=a b\r\nTALLY_HTTP='off' canary\r\n", "2"),
        ("a: canary\n" * 12, "1, 2, 3, 4, 5, 6, 7, 8, 9, 10 and more"),
    ],
    ids=["a colon", "quotes", "quotes to the end", "behind quotes", "another file"],
)
def test_a_line_that_is_none_is_told_and_not_passed_over(
    tmp_path: Path, content: str, lines: str
) -> None:
    """With TALLY_NAMESPACE in it the worker would count elsewhere. By its number: what stands there may be a secret."""
    (tmp_path / ".env").write_bytes(content.encode())
    assert f"\n  Line {lines}: not of the form NAME=value, " in refused()
    assert f"(.env: {tmp_path / '.env'})" in refused()


def test_a_value_in_a_file_is_taken_as_it_stands(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As systemd and compose's env_file take it: a password may hold what looks like a variable. Quotes are no part."""
    monkeypatch.setenv("HOME", "/canary")
    (tmp_path / ".env").write_text(
        "\ufeffPUBNUB_AUTH_TOKEN=q${NOPE}w${HOME}$HOME\n"
        "export TALLY_TYPES='a,${b}' # ours\nTALLY_CHANNELS=\nTALLY_HTTP\n",
        encoding="utf-8",
    )
    settings = load()
    assert (settings.auth_token, settings.types) == ("q${NOPE}w${HOME}$HOME", ("a", "${b}"))
    assert settings.given.sources.keys() == {"PUBNUB_AUTH_TOKEN", "TALLY_TYPES"}


@pytest.mark.parametrize("seconds", ["961", "0", "-1"])
def test_a_cache_trusted_for_too_long_or_not_at_all_is_refused(
    monkeypatch: pytest.MonkeyPatch, seconds: str
) -> None:
    """PubNub's holds for some sixteen minutes."""
    monkeypatch.setenv("TALLY_CATCHUP_SECONDS", seconds)
    assert "TALLY_CATCHUP_SECONDS" in refused()


def test_a_slip_is_told_beside_the_errors_it_may_have_caused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By its name, never by its value."""
    monkeypatch.setenv("TALLY_CHANELS", CANARY)
    monkeypatch.setenv("PUBNUB_TLS", "maybe")
    assert refused().endswith(
        "\n  TALLY_CHANELS (environment) is no setting; is TALLY_CHANNELS meant?"
    )


def test_secrets_are_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not in the settings' own text, nor in that of what they were read from."""
    for name in SECRETS:
        monkeypatch.setenv(name, CANARY)
    settings = load()
    assert CANARY not in repr(settings) + str(settings) + repr(settings.given)


# --- where a value comes from -----------------------------------------------------------------------------------------


def test_each_value_knows_its_source(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The environment goes before .env; a file is named by its path."""
    secret = file(tmp_path / "key", "sec-c-1")
    (tmp_path / ".env").write_text(
        f"TALLY_NAMESPACE=mine\nPUBNUB_SECRET_KEY_FILE={secret}\nTALLY_TYPES=a\n"
    )
    monkeypatch.setenv("TALLY_TYPES", "reaction")
    settings = load()

    assert settings.types == ("reaction",)
    assert settings.secret_key == "sec-c-1"
    assert settings.secret_key_file == secret
    sources = {name: settings.source(name) for name in FIELDS if settings.is_set(name)}
    assert sources == {
        "PUBNUB_SECRET_KEY": f"file {secret}",
        "PUBNUB_SECRET_KEY_FILE": ".env",
        "TALLY_TYPES": "environment",
        "TALLY_NAMESPACE": ".env",
    }
    assert settings.source("TALLY_HTTP") == "default"
    assert not settings.is_set("TALLY_HTTP")


def test_a_default_that_was_chosen_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether a person said it is not seen from the value."""
    monkeypatch.setenv("TALLY_HTTP", "127.0.0.1:8080")
    assert load().http == Settings().http
    assert load().is_set("TALLY_HTTP")


def test_settings_made_in_a_program_take_nothing_from_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Only what they were given."""
    monkeypatch.setenv("TALLY_NAMESPACE", "environment")
    made = Settings.model_validate({"TALLY_CHANNELS": "a,b"})
    assert (made.namespace, made.channels) == ("tally", ("a", "b"))
    assert made.is_set("TALLY_CHANNELS")


# --- secrets in files -------------------------------------------------------------------------------------------------


def file(path: Path, content: str | bytes) -> Path:
    """Write a file, and return its path."""
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize("name", SECRETS)
def test_every_secret_may_stand_in_a_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    """Its text without the white space around it, which an editor or a shell puts there."""
    monkeypatch.setenv(f"{name}_FILE", str(file(tmp_path / "secret", " \r\nthe-secret\n\n")))
    settings = load()
    assert getattr(settings, FIELDS[name]) == "the-secret"
    assert settings.is_set(name)


@pytest.mark.parametrize("name", SECRETS)
def test_a_secret_given_twice_in_one_source_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    """Nobody could know which was meant; both are named."""
    monkeypatch.setenv(name, CANARY)
    monkeypatch.setenv(f"{name}_FILE", str(file(tmp_path / "secret", CANARY)))
    assert f"{name} and {name}_FILE are both set" in refused()


def test_a_file_in_the_environment_goes_before_a_secret_in_dotenv(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """And the other way round: then the file is not even looked for."""
    (tmp_path / ".env").write_text(
        "PUBNUB_AUTH_TOKEN=dotenv\nPUBNUB_SECRET_KEY_FILE=/nowhere/at/all\n"
    )
    monkeypatch.setenv("PUBNUB_AUTH_TOKEN_FILE", str(file(tmp_path / "token", "from-file")))
    monkeypatch.setenv("PUBNUB_SECRET_KEY", "sec-c-environment")
    settings = load()
    assert (settings.auth_token, settings.secret_key) == ("from-file", "sec-c-environment")
    assert settings.secret_key_file is None
    assert settings.source("PUBNUB_SECRET_KEY") == "environment"


def test_a_bad_file_of_a_secret_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Missing, empty, a folder, a pipe, no text, endless, malformed: by setting, path and source, never by content."""
    os.mkfifo(tmp_path / "pipe")
    bad = {
        "PUBNUB_SUBSCRIBE_KEY": (tmp_path / "missing", "cannot be read: No such file or directory"),
        "PUBNUB_PUBLISH_KEY": (file(tmp_path / "empty", " \n"), "is empty"),
        "PUBNUB_SECRET_KEY": (tmp_path, "cannot be read: Is a directory"),
        "PUBNUB_AUTH_TOKEN": (
            file(tmp_path / "latin", f"{CANARY}\xe9".encode("latin-1")),
            "is not UTF-8 text",
        ),
        "REDIS_URL": (tmp_path / "pipe", "cannot be read: it is not a file"),
    }
    for name, (path, _) in bad.items():
        monkeypatch.setenv(f"{name}_FILE", str(path))
    told = refused()
    for name, (path, words) in bad.items():
        assert f"\n  {name}_FILE: the file {path} {words}. (environment)" in told

    monkeypatch.setenv("REDIS_URL_FILE", str(file(tmp_path / "long", CANARY * MAX_SECRET_BYTES)))
    monkeypatch.setenv(
        "PUBNUB_SECRET_KEY_FILE", str(key := file(tmp_path / "key", f"{CANARY} {CANARY}"))
    )
    told = refused()
    assert f"REDIS_URL_FILE: the file {tmp_path / 'long'} is longer than" in told
    assert "PUBNUB_SECRET_KEY: a key has only letters" in told
    assert f"(file {key})" in told


@pytest.mark.parametrize(
    "secret", ["sec-c-canary", "q+canary/x=", "redis://:canary@localhost:6379/0", "canary" * 999]
)
def test_a_secret_in_place_of_its_path_is_not_shown(
    monkeypatch: pytest.MonkeyPatch, secret: str
) -> None:
    """An easy slip, and the sentence about a file that is not there would quote it."""
    monkeypatch.setenv("PUBNUB_AUTH_TOKEN_FILE", secret)
    assert "PUBNUB_AUTH_TOKEN_FILE: the file (not shown" in refused()


def refused() -> str:
    """Return what is wrong with the settings, in which no secret is."""
    with pytest.raises(ConfigurationError) as error:
        load()
    assert CANARY not in str(error.value)
    return str(error.value)


def test_a_token_is_read_as_it_is_now(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A rotated file gives the new one; one that is gone or empty is an error that names it."""
    token = file(tmp_path / "token", "first\n")
    monkeypatch.setenv("PUBNUB_AUTH_TOKEN_FILE", str(token))
    settings = load()
    assert settings.read_token() == settings.auth_token == "first"

    file(token, "second")
    assert settings.read_token() == "second"
    file(token, "")
    with pytest.raises(
        ConfigurationError, match=rf"PUBNUB_AUTH_TOKEN_FILE: the file {token} is empty"
    ):
        settings.read_token()
    token.unlink()
    with pytest.raises(
        ConfigurationError, match=rf"PUBNUB_AUTH_TOKEN_FILE: the file {token} cannot be read"
    ):
        settings.read_token()


def test_a_token_without_a_file_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """As it was at the start, or none."""
    assert load().read_token() is None
    monkeypatch.setenv("PUBNUB_AUTH_TOKEN", "token")
    assert load().read_token() == "token"


# --- the list of channels ---------------------------------------------------------------------------------------------


def test_a_list_of_channels_is_read_anew_each_time(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """One a line or with commas between, from any editor; blank lines and comments are nobody's."""
    listed = file(
        tmp_path / "channels", "\ufeff# ours\r\nroom\r\n\n  hall , news.* ,\n  # not: cellar\nc#"
    )
    monkeypatch.setenv("TALLY_CHANNELS", "first,room")
    monkeypatch.setenv("TALLY_CHANNELS_FILE", str(listed))
    settings = load()
    assert settings.all_channels() == ("first", "room", "hall", "news.*", "c#")

    file(listed, "attic\n")
    assert settings.all_channels() == ("first", "room", "attic")
    file(listed, "")
    assert settings.all_channels() == ("first", "room")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"room\nca:nary\nhall\na.b.c.*\n", "line 2, 4: no name PubNub takes"),
        (b"room # of canary\n", "line 1: no name"),
        (b"room,canary/\x1b[31m\n", "line 1: no name"),
        (b"canary\xff\n", "is not UTF-8 text"),
        (b"a:canary\n" * 99, "line 1, 2, 3, 4, 5, 6, 7, 8, 9, 10 and more: no name"),
        (b"canary" * (MAX_LIST_BYTES // 6 + 1), f"is longer than {MAX_LIST_BYTES} bytes"),
    ],
    ids=[
        "names",
        "a comment behind a name",
        "controls",
        "no text",
        "another file",
        "an endless file",
    ],
)
def test_a_bad_list_of_channels_is_told_by_file_and_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: bytes, words: str
) -> None:
    """Not by its text: that may be a secret's file, at the wrong place."""
    listed = file(tmp_path / "channels", content)
    monkeypatch.setenv("TALLY_CHANNELS_FILE", str(listed))
    with pytest.raises(ConfigurationError) as error:
        load().all_channels()
    assert str(error.value).startswith(f"TALLY_CHANNELS_FILE: the file {listed}")
    assert words in str(error.value)
    assert CANARY not in str(error.value)


# --- the address ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "address", "shown"),
    [
        ("0.0.0.0:9000", Address("0.0.0.0", 9000), "0.0.0.0:9000"),  # noqa: S104 - nobody listens there
        ("localhost:0", Address("localhost", 0), "localhost:0"),
        ("[::1]:8080", Address("::1", 8080), "[::1]:8080"),
        (":8081", Address("127.0.0.1", 8081), "127.0.0.1:8081"),
        (" 8082 ", Address("127.0.0.1", 8082), "127.0.0.1:8082"),
        ("65535", Address("127.0.0.1", 65535), "127.0.0.1:65535"),
        ("off", None, "None"),
        ("OFF", None, "None"),
        ("", Address("127.0.0.1", 8080), "127.0.0.1:8080"),
    ],
)
def test_an_address_is_read(
    monkeypatch: pytest.MonkeyPatch, text: str, address: Address | None, shown: str
) -> None:
    """Host and port, or the port alone: then on loopback, where only this machine sees it."""
    monkeypatch.setenv("TALLY_HTTP", text)
    assert load().http == address
    assert str(load().http) == shown


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("localhost:http", "the port 'http' is no number from 0 to 65535"),
        ("localhost:65536", "the port '65536' is no number"),
        ("65536", "the port '65536' is no number"),
        ("localhost:", "the port '' is no number"),
        ("localhost:-1", "the port '-1' is no number"),
        ("localhost:٨٠", "the port '٨٠' is no number"),
        ("localhost", "give host:port, :port, a port alone, or off"),
        ("::1:8080", "an IPv6 address stands in brackets"),
        ("[::1", "the port '1' is no number|stands in brackets"),
        ("[localhost]:80", "'[localhost]' is no IPv6 address"),
        ("http://localhost:80", "an IPv6 address stands in brackets|is no host name"),
        ("*:80", "'*' is no host name; 0.0.0.0 stands for"),
    ],
)
def test_a_wrong_address_is_told_by_its_part(
    monkeypatch: pytest.MonkeyPatch, text: str, words: str
) -> None:
    """Where the port alone is wrong, that is said."""
    monkeypatch.setenv("TALLY_HTTP", text)
    told = refused()
    assert "\n  TALLY_HTTP: " in told
    assert any(word in told for word in words.split("|"))


# --- slips ------------------------------------------------------------------------------------------------------------


def test_a_slip_is_told_with_the_nearest_name(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """From the environment and from .env; never its value. Other people's variables are left alone."""
    (tmp_path / ".env").write_text(f"PUBNUB_SUBSCRIBEKEY={CANARY}\nTALLYHO={CANARY}\n")
    for name in (
        "tally_chanels",
        "TALLY_QQQQ",
        "REDIS_HOST",
        "MY_TALLY_HTTP",
        "TALLY_CHANNEL_GROUPS",
    ):
        monkeypatch.setenv(name, CANARY)
    unknown = load().given.unknown
    assert list(map(str, unknown)) == [
        "TALLY_CHANELS (environment) is no setting; is TALLY_CHANNELS meant?",
        "TALLY_QQQQ (environment) is no setting.",
        "PUBNUB_SUBSCRIBEKEY (.env) is no setting; is PUBNUB_SUBSCRIBE_KEY meant?",
    ]
    assert CANARY not in repr(unknown)


def test_what_kubernetes_tells_of_a_service_is_no_slip(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Service called ``tally`` puts these into every container of its namespace."""
    for name in (
        "TALLY_SERVICE_HOST",
        "TALLY_SERVICE_PORT",
        "TALLY_SERVICE_PORT_HTTP",
        "TALLY_PORT",
        "TALLY_PORT_8080_TCP",
        "TALLY_PORT_8080_TCP_ADDR",
    ):
        monkeypatch.setenv(name, "10.0.0.1")
    assert load().given.unknown == []


# --- the example ------------------------------------------------------------------------------------------------------


def test_the_example_sets_nothing(tmp_path: Path) -> None:
    """Copied as it is, and with every line of it put in force."""
    (tmp_path / ".env").write_text(env_example(), encoding="utf-8")
    assert load().model_dump() == Settings().model_dump()
    assert load().given.sources == {}

    (tmp_path / ".env").write_text(
        env_example().replace("\n#", "\n").replace("\n ", "\n# "), encoding="utf-8"
    )
    settings = load()
    assert settings.model_dump() == Settings().model_dump()
    assert settings.given.unknown == []
    assert settings.is_set("TALLY_HTTP")


def test_the_example_begins_with_what_is_needed() -> None:
    """And has every setting once."""
    lines = [
        line.lstrip("#")
        for line in env_example().splitlines()
        if line and not line.startswith("# ")
    ]
    names = [line.partition("=")[0] for line in lines]
    assert tuple(names[: len(NEEDED)]) == NEEDED
    assert sorted(names) == sorted(FIELDS)
