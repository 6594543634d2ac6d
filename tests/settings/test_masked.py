"""The settings in force, as they are shown: without secrets."""

from pathlib import Path

import pytest

from tests.settings.given import Give
from worker.settings import FIELDS, SECRETS, Settings
from worker.settings.checks import CONFIG, load
from worker.settings.masked import as_json, as_lines, mask_address


def test_values_are_shown_as_one_writes_them(give: Give) -> None:
    """In the order of the documentation, so that the environment could hold them."""
    values = {
        "PUBNUB_TLS": "false",
        "TALLY_CHANNELS": "a,b.*",
        "TALLY_SETTLE_SECONDS": "0.5",
        "TALLY_RECONCILE_FULL_SECONDS": "1209600",
        "TALLY_HTTP": "off",
    }
    give(**values)
    shown = {setting["name"]: setting for setting in as_json(load(CONFIG))["settings"]}

    assert list(shown) == list(FIELDS)
    assert {name: shown[name]["value"] for name in values} == values
    assert {setting["source"] for setting in shown.values()} == {"environment", "default"}
    assert [name for name in shown if shown[name]["secret"]] == list(SECRETS)

    give(**{name: setting["value"] for name, setting in shown.items() if setting["value"]})
    assert load(CONFIG).model_dump() == Settings.model_validate(values).model_dump()


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("redis://localhost:6379/0", "redis://localhost:6379/0"),
        ("rediss://:canary@[::1]:6379", "rediss://:***@[::1]:6379"),
        ("redis://worker:can@ary@h/0", "redis://worker:***@h/0"),
        ("redis://canary@h/0", "redis://***@h/0"),
        ("redis://canary:@h/0", "redis://***@h/0"),
        ("redis://user:12/canary@h:6379", None),
        ("redis://user:12?canary@h:6379", None),
        ("redis://user:12#canary@h:6379", None),
        ("redis://h:6379/0?password=hunter@canary", None),
        ("redis://w:pw@h/0?password=a@canary", None),
        ("redis://user:12@34/canary", None),
        ("redis://canary/word", None),
        ("redis:///canary", None),
        ("redis://h#canary", None),
        ("unix://worker:canary@/run/redis.sock?db=1", "unix://worker:***@/run/redis.sock?db=1"),
        ("unix:///run/canary@redis", None),
        ("redis://h?password=canary&db=2&username=canary", "redis://h?password=***&db=2&***"),
        ("redis://h?ssl_ca_certs=/a;password=canary", "redis://h?***"),
        ("redis://h?db=1=canary", "redis://h?***"),
        ("redis://h?canary", "redis://h?***"),
        ("redis+cluster://a:can@ary@h:1,i:2", "redis+cluster://a:***@h:1,i:2"),
        ("redis+cluster://a:12/canary", None),
        ("rediss+sentinel://:canary@h:1,i/chats/0", "rediss+sentinel://:***@h:1,i/chats/0"),
        ("redis+sentinel://:12/canary@h/chats", None),
        (
            "redis+sentinel://h/chats?sentinel_password=canary",
            "redis+sentinel://h/chats?sentinel_password=***",
        ),
    ],
)
def test_no_part_of_a_password_is_shown(address: str, shown: str | None) -> None:
    """A password that is not encoded stands where a host, a path or an option would."""
    assert mask_address(address) == shown


def test_a_terminal_obeys_no_shown_value(give: Give, tmp_path: Path) -> None:
    """Values, paths, and names of variables are escaped."""
    hostile = tmp_path / "a\x1b[31mb"
    hostile.write_text("key")
    give(
        PUBNUB_SECRET_KEY_FILE=str(hostile),
        PUBNUB_PUBLISH_KEY="pub",
        PUBNUB_USER_ID="a\x1b]0;b\x07",
        **{"TALLY_\x1b[2J": "x"},
    )
    settings = load(CONFIG)
    text = "".join(as_lines(settings))

    assert text.isprintable()
    assert "a\\x1b[31mb" in text
    assert "warning: TALLY_\\x1b[2J (environment) is no setting" in text
    (unknown,) = as_json(settings)["unknown"]
    assert unknown == {"name": "TALLY_\x1b[2J", "source": "environment", "nearest": None}
