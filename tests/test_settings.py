"""Settings: what the environment says, checked all at once."""

import os
from pathlib import Path

import pytest

from worker.errors import ConfigurationError
from worker.settings import load


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Stand in an empty folder, with none of our settings set."""
    for name in os.environ:
        if name.startswith(("PUBNUB_", "TALLY_", "REDIS_")):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def test_lists_are_comma_separated_text(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blanks around a name are nobody's; an empty value is no value."""
    monkeypatch.setenv("TALLY_CHANNELS", " a, b ,,c.* ")
    monkeypatch.setenv("TALLY_IGNORED_TYPES", "")
    settings = load()
    assert settings.channels == ("a", "b", "c.*")
    assert settings.ignored_types == ("edited", "deleted", "threadRootId")


def test_a_file_gives_what_the_environment_does_not(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The environment goes first; other people's lines are left alone."""
    (tmp_path / ".env").write_text("TALLY_CHANNELS=file\nTALLY_NAMESPACE=file\nOTHER=x\n", encoding="utf-8")
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


def test_secrets_are_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not in the settings' own text either."""
    for name in ("PUBNUB_SECRET_KEY", "PUBNUB_AUTH_TOKEN", "REDIS_URL"):
        monkeypatch.setenv(name, "canary")
    assert "canary" not in repr(load())
