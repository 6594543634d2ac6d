"""Where a setting comes from: the environment, ``.env``, or the file of a secret."""

import os
from pathlib import Path

import pytest

from tests.env_example import NEEDED, env_example
from tests.settings.given import CANARY, Give, refused
from worker.errors import ConfigurationError
from worker.settings import FIELDS, SECRETS, Settings, read
from worker.settings.checks import CONFIG, load
from worker.settings.files import MAX_SECRET_BYTES


def sources() -> dict[str, str]:
    """Return setting → source, of those that are set."""
    settings, _ = read()
    return {name: settings.source(name) for name in FIELDS if settings.is_set(name)}


def test_each_value_knows_its_source(give: Give, dotenv: Path, tmp_path: Path) -> None:
    """The environment goes before .env. Variables of other programs are no settings."""
    key = tmp_path / "key"
    key.write_text("sec-c-1")
    dotenv.write_text(f"TALLY_NAMESPACE=mine\nPUBNUB_SECRET_KEY_FILE={key}\nTALLY_TYPES=a\nX=y\n")
    give(TALLY_TYPES="b", TALLY_CHANNELS="")
    settings, problems = read()

    assert problems == []
    assert (settings.types, settings.namespace) == (("b",), "mine")
    assert (settings.secret_key, settings.secret_key_file) == ("sec-c-1", key)
    assert sources() == {
        "PUBNUB_SECRET_KEY": f"file {key}",
        "PUBNUB_SECRET_KEY_FILE": ".env",
        "TALLY_TYPES": "environment",
        "TALLY_NAMESPACE": ".env",
    }
    assert settings.source("TALLY_CHANNELS") == "default"


def test_a_chosen_default_counts_as_set(give: Give) -> None:
    """The value alone does not tell."""
    give(TALLY_HTTP="127.0.0.1:8080")
    settings = load(CONFIG)

    assert settings.http == Settings().http
    assert settings.is_set("TALLY_HTTP")


def test_settings_of_a_program_ignore_the_environment(give: Give) -> None:
    """They hold only the values that were passed in."""
    give(TALLY_NAMESPACE="environment")
    settings = Settings.model_validate({"TALLY_CHANNELS": "a,b"})

    assert (settings.namespace, settings.channels) == ("tally", ("a", "b"))
    assert settings.is_set("TALLY_CHANNELS")


# --- .env ---------------------------------------------------------------------------------


def test_dotenv_values_are_taken_literally(give: Give, dotenv: Path) -> None:
    """As by systemd: a password may hold what looks like a variable. Quotes are no part of it."""
    give(HOME="/canary")
    dotenv.write_text(
        "\ufeffPUBNUB_AUTH_TOKEN=q${NOPE}w${HOME}$HOME\n"
        "export TALLY_TYPES='a,${b}' # ours\nTALLY_CHANNELS=\nTALLY_HTTP\n",
        encoding="utf-8",
    )
    settings = load(CONFIG)

    assert settings.auth_token == "q${NOPE}w${HOME}$HOME"
    assert settings.types == ("a", "${b}")
    assert sources() == {"PUBNUB_AUTH_TOKEN": ".env", "TALLY_TYPES": ".env"}


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
def test_malformed_dotenv_lines_are_refused(dotenv: Path, content: str, lines: str) -> None:
    """By number, because a line may hold a secret."""
    dotenv.write_bytes(content.encode())
    (line,) = refused()

    assert line.startswith(f".env: line {lines}: not of the form NAME=value, ")
    assert line.endswith(f"(.env: {dotenv})")


def test_an_unreadable_dotenv_hides_no_other_problem(give: Give, dotenv: Path) -> None:
    """The environment is checked all the same."""
    dotenv.write_bytes(b"TALLY_CHANNELS=canary\xff\xfe")
    give(TALLY_HTTP="x")
    unreadable, wrong = refused()

    assert unreadable.startswith(".env: the file .env cannot be read: it is not UTF-8 text.")
    assert wrong.startswith("TALLY_HTTP: ")


# --- the files of secrets -----------------------------------------------------------------


@pytest.mark.parametrize("name", SECRETS)
def test_a_secret_given_twice_is_refused(give: Give, tmp_path: Path, name: str) -> None:
    """Both variables are named, since either may be meant."""
    (tmp_path / "secret").write_text(CANARY)
    give(**{name: CANARY, f"{name}_FILE": "secret"})
    line = refused()[0]

    assert line.startswith(f"{name} and {name}_FILE are both set; keep one.")
    assert line.endswith(f"({name}: environment) ({name}_FILE: environment)")


def test_the_environment_outranks_dotenv_for_files(
    give: Give, dotenv: Path, tmp_path: Path
) -> None:
    """A secret and its file are one setting: the file that .env names is not even read."""
    (tmp_path / "token").write_text("from-file")
    dotenv.write_text("PUBNUB_AUTH_TOKEN=dotenv\nPUBNUB_SECRET_KEY_FILE=/nowhere/at/all\n")
    give(PUBNUB_AUTH_TOKEN_FILE="token", PUBNUB_SECRET_KEY="sec-c-environment")
    settings, problems = read()

    assert problems == []
    assert (settings.auth_token, settings.secret_key) == ("from-file", "sec-c-environment")
    assert settings.secret_key_file is None
    assert settings.source("PUBNUB_SECRET_KEY") == "environment"
    assert settings.source("PUBNUB_SECRET_KEY_FILE") == "default"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "cannot be read: No such file or directory"),
        (b" \n", "is empty. Write the value into it, or take PUBNUB_AUTH_TOKEN_FILE away"),
        (f"{CANARY}\xe9".encode("latin-1"), "cannot be read: it is not UTF-8 text"),
        (
            CANARY.encode() * MAX_SECRET_BYTES,
            f"cannot be read: it is longer than {MAX_SECRET_BYTES} bytes",
        ),
    ],
    ids=["missing", "empty", "latin", "long"],
)
def test_an_unusable_secret_file_is_named(
    give: Give, tmp_path: Path, content: bytes | None, reason: str
) -> None:
    """With its setting, its path and its source; its text is not quoted."""
    path = tmp_path / "secret"
    if content is not None:
        path.write_bytes(content)
    give(PUBNUB_AUTH_TOKEN_FILE=str(path))

    assert refused() == [
        f"PUBNUB_AUTH_TOKEN_FILE: the file {path} {reason}. (PUBNUB_AUTH_TOKEN_FILE: environment)"
    ]


def test_a_folder_or_a_pipe_is_no_secret_file(give: Give, tmp_path: Path) -> None:
    """The opening of a pipe would wait for ever."""
    os.mkfifo(tmp_path / "pipe")
    give(PUBNUB_SECRET_KEY_FILE=str(tmp_path), REDIS_URL_FILE="pipe")
    folder, pipe = refused()

    assert "cannot be read: Is a directory." in folder
    assert "the file pipe cannot be read: it is not a file." in pipe


def test_a_malformed_secret_names_its_file(give: Give, tmp_path: Path) -> None:
    """The source of a secret is its file."""
    (tmp_path / "key").write_text("canary canary")
    give(PUBNUB_SECRET_KEY_FILE="key")
    (line,) = refused()

    assert line.startswith("PUBNUB_SECRET_KEY: a key has only letters")
    assert line.endswith("(PUBNUB_SECRET_KEY: file key)")


@pytest.mark.parametrize(
    "secret", ["sec-c-canary", "q+canary/x=", "redis://:canary@localhost:6379/0", "canary" * 999]
)
def test_a_secret_given_as_a_path_is_hidden(give: Give, secret: str) -> None:
    """It is an easy slip, and a missing file is named otherwise."""
    give(PUBNUB_AUTH_TOKEN_FILE=secret)
    (line,) = refused()

    assert line.startswith("PUBNUB_AUTH_TOKEN_FILE: the file (not shown")


@pytest.mark.parametrize("name", ["PUBNUB_AUTH_TOKEN", "REDIS_URL"])
def test_white_space_around_a_secret_is_no_part_of_it(give: Give, name: str) -> None:
    """As in a file: a copied line may end with a carriage return."""
    give(**{name: " redis://localhost \r\n"})
    settings = load(CONFIG)
    assert "redis://localhost" in (settings.auth_token, settings.redis_url)


def test_a_rotated_token_is_read_again(give: Give, tmp_path: Path) -> None:
    """An error names the file that is gone or empty. A token without a file stays."""
    assert load(CONFIG).read_token() is None
    path = tmp_path / "token"
    path.write_text("first\n")
    give(PUBNUB_AUTH_TOKEN_FILE=str(path))
    settings = load(CONFIG)
    assert settings.read_token() == settings.auth_token == "first"

    path.write_text("second")
    assert settings.read_token() == "second"

    path.write_text("")
    expected = f"PUBNUB_AUTH_TOKEN_FILE: the file {path} is empty"
    with pytest.raises(ConfigurationError, match=expected):
        settings.read_token()

    del os.environ["PUBNUB_AUTH_TOKEN_FILE"]
    give(PUBNUB_AUTH_TOKEN="token")
    assert load(CONFIG).read_token() == "token"


# --- unknown variables --------------------------------------------------------------------


def test_unknown_variables_come_with_the_nearest_name(give: Give, dotenv: Path) -> None:
    """From the environment and .env, without the value. Other prefixes are left alone."""
    dotenv.write_text(f"PUBNUB_SUBSCRIBEKEY={CANARY}\nTALLYHO={CANARY}\n")
    give(REDIS_URL="redis://localhost", REDIS_HOST=CANARY, MY_TALLY_HTTP=CANARY)
    give(tally_chanels=CANARY, TALLY_QQQQ=CANARY)
    unknown = load(CONFIG).report.unknown

    assert list(map(str, unknown)) == [
        "TALLY_CHANELS (environment) is no setting; is TALLY_CHANNELS meant?",
        "TALLY_QQQQ (environment) is no setting.",
        "PUBNUB_SUBSCRIBEKEY (.env) is no setting; is PUBNUB_SUBSCRIBE_KEY meant?",
    ]
    assert CANARY not in repr(unknown)


def test_kubernetes_variables_of_a_service_are_known(give: Give) -> None:
    """A Service called ``tally`` puts these into every container of its namespace."""
    ends = "SERVICE_HOST SERVICE_PORT SERVICE_PORT_HTTP PORT PORT_8080_TCP PORT_8080_TCP_ADDR"
    give(**{f"TALLY_{end}": "10.0.0.1" for end in ends.split()})
    assert load(CONFIG).report.unknown == []


# --- .env.example -------------------------------------------------------------------------


def test_the_example_sets_nothing(dotenv: Path) -> None:
    """Neither as it is, nor with every line of it in force."""
    dotenv.write_text(env_example(), encoding="utf-8")
    assert load(CONFIG).model_dump() == Settings().model_dump()
    assert sources() == {}

    in_force = env_example().replace("\n#", "\n").replace("\n ", "\n# ")
    dotenv.write_text(in_force, encoding="utf-8")
    settings = load(CONFIG)
    assert settings.model_dump() == Settings().model_dump()
    assert settings.report.unknown == []
    assert settings.is_set("TALLY_HTTP")

    lines = [line for line in in_force.splitlines() if not line.startswith("# ")]
    names = [line.partition("=")[0] for line in lines if "=" in line]
    assert tuple(names[: len(NEEDED)]) == NEEDED
    assert sorted(names) == sorted([*FIELDS, "SECRETS_FOLDER"])


def test_other_names_of_redis_url_count_without_it(give: Give) -> None:
    """Other programs may have them. Without REDIS_URL they are probably meant."""
    give(REDIS_HOST=CANARY)

    assert list(map(str, load(CONFIG).report.unknown)) == [
        "REDIS_HOST (environment) is no setting; is REDIS_URL meant?"
    ]
