"""``deploy/compose.yaml`` and what it mounts: confined services, on this machine only."""

import asyncio
import os
import re
import shutil
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import pytest

from tests.deploy.compose_files import FOLDER, Service, read, slips
from tests.deploy.dockerfile import ROOT, stages
from tests.deploy.invocations import arguments
from tests.deploy.needed import needs, run, untried
from worker.demo.crowd import CHANNELS
from worker.emulator import Emulator
from worker.settings import FIELDS, SECRETS, Settings

FILE: Final = FOLDER / "compose.yaml"
SECONDS: Final = 60

COMPOSE: Final[Service] = read(FILE)
SERVICES: Final[dict[str, Service]] = COMPOSE["services"]
OURS: Final = [name for name, service in SERVICES.items() if service["image"] == "reaction-tally"]
EVERY: Final = pytest.mark.parametrize("name", SERVICES)


def environment(name: str, env_file: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment of a service, with what ``.env`` sets."""
    env_file = env_file or {}
    fixed: dict[str, str] = SERVICES[name].get("environment", {})
    read = env_file if "env_file" in SERVICES[name] else {}
    return {
        **read,
        **{variable: interpolated(text, env_file) for variable, text in fixed.items()},
    }


def interpolated(text: str, variables: Mapping[str, str]) -> str:
    """Replace ``${A-b}`` and ``${A:-b}`` as Compose does: with a colon an empty A is unset, too."""

    def value(match: re.Match[str]) -> str:
        name, colon, default = match.groups()
        given = variables.get(name)
        return default if given is None or (colon and not given) else given

    return re.sub(r"\$\{(\w+)(:?)-(.*?)\}", value, text)


def mounts(name: str) -> dict[str, str]:
    """Return target → source of what a service mounts."""
    return {mount.split(":")[1]: mount.split(":")[0] for mount in SERVICES[name].get("volumes", [])}


def test_the_file_fits_the_specification() -> None:
    """By its own schema, which refuses unknown fields."""
    assert slips(COMPOSE) == []


def test_a_slip_is_noticed() -> None:
    """The schema refuses an unknown field."""
    wrong = {
        **COMPOSE,
        "services": {**SERVICES, "redis": {**SERVICES["redis"], "mem_limits": "1g"}},
    }

    (slip,) = slips(wrong)
    assert slip.startswith("$.services.redis: 'mem_limits'")


def test_compose_accepts_the_file() -> None:
    """Any version of Docker Compose; no engine is needed."""
    docker = shutil.which("docker")
    if not docker or run(docker, "compose", "version").returncode:
        pytest.skip(untried("docker compose", "that it takes deploy/compose.yaml"))
    checked = run(docker, "compose", "-f", FILE, "config", "--quiet")
    assert checked.returncode == 0, checked.stderr


def test_the_services_are_complete() -> None:
    """A worker, its Redis, a PubNub with users, Prometheus and Grafana."""
    assert set(SERVICES) == {"worker", "redis", "emulator", "load", "prometheus", "grafana"}


def test_a_full_redis_refuses_writes() -> None:
    """Its own limit leaves a quarter of the container's memory for a fork."""
    size = {"k": 1024, "m": 1024**2, "g": 1024**3}
    command, limit = SERVICES["redis"]["command"], SERVICES["redis"]["mem_limit"]
    own = command[command.index("--maxmemory") + 1].removesuffix("b")

    assert int(own[:-1]) * size[own[-1]] <= 0.75 * int(limit[:-1]) * size[limit[-1]]


@EVERY
def test_every_image_has_an_exact_version(name: str) -> None:
    """Or is built here: 7-alpine is another server every month."""
    image = SERVICES[name]["image"]

    assert name in OURS or re.fullmatch(r"[a-z/]+:v?\d+\.\d+\.\d+(-alpine)?", image)


@EVERY
def test_every_service_is_confined(name: str) -> None:
    """No write but in a volume, no privilege; limits on memory, processes and log."""
    service = SERVICES[name]

    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service.keys() >= {"mem_limit", "pids_limit"}
    assert service["logging"]["options"].keys() == {"max-size", "max-file"}
    assert not service.keys() & {"privileged", "network_mode", "pid", "cap_add"}


@EVERY
def test_ports_are_bound_to_loopback(name: str) -> None:
    """No service has a password."""
    assert all(port.startswith("127.0.0.1:") for port in SERVICES[name].get("ports", []))


@EVERY
def test_mounted_files_exist_and_are_read_only(name: str) -> None:
    """Compose would create a missing file as a folder."""
    for mount in SERVICES[name].get("volumes", []):
        source = mount.split(":")[0]
        if source.startswith("./"):
            assert (FOLDER / source).exists()
            assert mount.endswith(":ro")
        else:
            assert source in COMPOSE["volumes"]


@EVERY
def test_every_service_has_a_health_check(name: str) -> None:
    """Its own or the image's; except the users, who serve nothing."""
    check = SERVICES[name].get("healthcheck", {})
    image_checks = name == "worker"

    assert ("test" in check) == (name not in {"worker", "load"})
    assert image_checks or "test" in check or check == {"disable": True}


def test_dependencies_have_a_health_check() -> None:
    """Otherwise Compose would wait for ever."""
    for service in SERVICES.values():
        for name, how in service.get("depends_on", {}).items():
            assert (how["condition"], "test" in SERVICES[name]["healthcheck"]) == (
                "service_healthy",
                True,
            )


def secret(name: str) -> str:
    """Return a secret of the worker, as the example has it."""
    file = COMPOSE["secrets"][name]["file"]
    path = re.sub(r"\$\{\w+:-(.*?)\}", r"\1", file)
    return (FOLDER / path).read_text(encoding="utf-8").strip()


def test_the_worker_gets_every_setting() -> None:
    """From one file, which may be missing. What Compose itself sets can be changed there, too."""
    worker = SERVICES["worker"]
    assert worker["env_file"] == [{"path": ".env", "required": False}]
    fixed = {name for name, text in worker["environment"].items() if f"${{{name}" not in text}

    assert fixed == set()


def test_the_example_has_what_compose_alone_reads() -> None:
    """With its default; it is no setting of the worker."""
    example = (FOLDER / ".env.example").read_text(encoding="utf-8")
    read_by_compose = set(re.findall(r"\$\{(\w+:?-[^}]*)\}", str(COMPOSE)))
    own = {each for each in read_by_compose if re.split(":?-", each)[0] not in FIELDS}

    assert own == {"SECRETS_FOLDER:-./secrets.example"}
    assert "#SECRETS_FOLDER=./secrets.example\n" in example
    assert "SECRETS_FOLDER" not in FIELDS


def test_secrets_are_files() -> None:
    """No secret but the demo's stands here. Each file that a setting names is a secret."""
    worker = SERVICES["worker"]
    named = {path for name, path in environment("worker").items() if name.endswith("_FILE")}
    shown = {name: text for name, text in environment("worker").items() if name in SECRETS}

    assert shown == {"PUBNUB_SUBSCRIBE_KEY": "demo"}
    assert set(worker["secrets"]) == set(COMPOSE["secrets"])
    assert named - {""} <= {f"/run/secrets/{name}" for name in worker["secrets"]}
    assert all(secret(name) for name in worker["secrets"])


def test_the_worker_has_valid_settings() -> None:
    """With defaults; its channels are those of the users."""
    given = environment("worker")

    assert given.keys() <= FIELDS.keys()
    for name in SECRETS:
        if path := given.pop(f"{name}_FILE", ""):
            given[name] = secret(Path(path).name)
    settings = Settings.model_validate({name: text for name, text in given.items() if text})
    assert settings.channels == CHANNELS
    assert (settings.origin, settings.redis_url) == (
        _address("emulator"),
        f"redis://{_address('redis')}/0",
    )


EXAMPLE: Final = {"PUBNUB_SUBSCRIBE_KEY": "", "TALLY_CHANNELS": ""}
"""What a copy of ``.env.example`` sets."""


@pytest.mark.parametrize(
    ("filled_in", "channels"),
    [
        ({"PUBNUB_SUBSCRIBE_KEY": "sub-c-mine", "TALLY_CHANNELS": "room"}, ("room",)),
        ({"PUBNUB_SUBSCRIBE_KEY": "sub-c-mine", "TALLY_CHANNEL_GROUPS": "rooms"}, ()),
        ({"PUBNUB_SUBSCRIBE_KEY": "sub-c-mine", "TALLY_CHANNELS_FILE": "/channels"}, ()),
        ({"PUBNUB_SUBSCRIBE_KEY_FILE": "/run/secrets/key", "TALLY_CHANNELS": "room"}, ("room",)),
        ({"REDIS_URL": "redis://other/0", "REDIS_URL_FILE": ""}, ()),
    ],
)
def test_a_filled_in_example_is_what_the_worker_follows(
    filled_in: dict[str, str], channels: tuple[str, ...]
) -> None:
    """No channel of the demo beside it, and no setting twice: as itself and as a file."""
    example = (FOLDER / ".env.example").read_text(encoding="utf-8")
    assert dict(re.findall(r"^(\w+)=(.*)$", example, re.MULTILINE)) == EXAMPLE

    texts = environment("worker", {**EXAMPLE, **filled_in})
    given = {name: text for name, text in texts.items() if text}

    assert Settings.model_validate(given).channels == channels
    assert filled_in.items() <= texts.items()
    assert not [name for name in SECRETS if {name, f"{name}_FILE"} <= given.keys()]


def test_commands_are_the_programs_own() -> None:
    """Read by the program's own parser."""
    commands = {
        name: arguments(SERVICES[name]["command"])
        for name in OURS
        if "entrypoint" not in SERVICES[name]
    }

    assert {name: command for name, (command, _) in commands.items()} == {
        "worker": "run",
        "emulator": "emulator",
    }
    assert f"emulator:{commands['emulator'][1]['port']}" == _address("emulator")
    assert SERVICES["load"]["command"][0] == _address("emulator")


def test_the_worker_has_time_to_drain() -> None:
    """Compose kills after ten seconds by default."""
    given = Settings.model_validate(
        {name: text for name, text in environment("worker").items() if text}
    )

    assert (
        int(SERVICES["worker"]["stop_grace_period"].removesuffix("s")) >= given.drain_seconds + 10
    )


async def test_the_users_react_until_a_stop() -> None:
    """The mounted script publishes in the channels that the worker follows, and ends in silence."""
    mounted = {target: FOLDER / source for target, source in mounts("load").items()}
    program, path = SERVICES["load"]["entrypoint"]
    assert program == "python"

    async with Emulator() as emulator:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, mounted[path], emulator.origin, "200"),
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            async with asyncio.timeout(SECONDS):
                while set(emulator.truth()) != set(CHANNELS):
                    assert process.returncode is None
                    await asyncio.sleep(0.05)
                process.send_signal(signal.SIGTERM)
                _, error = await process.communicate()
                assert (process.returncode, error.decode()) == (0, "")
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()


def test_prometheus_scrapes_the_worker() -> None:
    """Its target is the port of the image; the rules are where the configuration wants them."""
    config = read(FOLDER / "prometheus/prometheus.yml")
    *_, image = stages((ROOT / "Dockerfile").read_text(encoding="utf-8"))
    targets = [
        target
        for job in config["scrape_configs"]
        for group in job["static_configs"]
        for target in group["targets"]
    ]
    there = mounts("prometheus")

    assert targets == [f"worker:{image.last('EXPOSE').text}"]
    assert config["rule_files"] == ["alerts.yml"]
    assert there["/etc/prometheus/alerts.yml"] == "./prometheus/alerts.yml"
    options = dict(word.removeprefix("--").split("=") for word in SERVICES["prometheus"]["command"])
    assert options["config.file"] in there
    assert there[options["storage.tsdb.path"]] in COMPOSE["volumes"]


@needs("promtool", "that Prometheus takes deploy/prometheus/prometheus.yml")
def test_promtool_accepts_the_configuration() -> None:
    """With the rules."""
    checked = run("promtool", "check", "config", FOLDER / "prometheus/prometheus.yml")

    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_grafana_has_the_dashboard() -> None:
    """The provider reads the mounted folder; the data source is the Prometheus beside it."""
    provisioning = FOLDER / "grafana/provisioning"
    (source,) = read(provisioning / "datasources/prometheus.yaml")["datasources"]
    (provider,) = read(provisioning / "dashboards/reaction-tally.yaml")["providers"]
    there = mounts("grafana")

    assert (source["type"], source["url"], source["isDefault"]) == (
        "prometheus",
        f"http://{_address('prometheus')}",
        True,
    )
    assert there["/etc/grafana/provisioning"] == "./grafana/provisioning"
    (target,) = [target for target, origin in there.items() if origin == "./grafana/dashboard.json"]
    assert str(Path(target).parent) == provider["options"]["path"]
    assert environment("grafana")["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"] == target
    interval = read(FOLDER / "prometheus/prometheus.yml")["global"]["scrape_interval"]
    assert source["jsonData"]["timeInterval"] == interval


def _address(name: str) -> str:
    """Return the address of a service in its network: its name and its published port."""
    (port,) = SERVICES[name]["ports"]
    return f"{name}:{port.rpartition(':')[2]}"
