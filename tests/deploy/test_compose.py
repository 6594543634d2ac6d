"""``deploy/compose.yaml`` and what it mounts: confined services, on this machine only."""

import asyncio
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import pytest
import yaml
from jsonschema import Draft7Validator  # type: ignore[import-untyped]  # kubernetes-validate brings it, without types

from tests.deploy.dockerfile import ROOT, stages
from tests.deploy.invocations import arguments
from tests.deploy.needed import needs, untried
from worker.demo.crowd import CHANNELS
from worker.emulator import Emulator
from worker.settings import FIELDS, Settings

FOLDER: Final = ROOT / "deploy"
FILE: Final = FOLDER / "compose.yaml"
SPECIFICATION: Final = Path(__file__).with_name("compose_specification") / "compose-spec.json"
"""The schema of github.com/compose-spec/compose-spec, as of June 2026 (170098b)."""
SECONDS: Final = 60

Service = dict[str, Any]


def read(path: Path) -> Any:
    """Return what a YAML file says."""
    return yaml.safe_load(path.read_text(encoding="utf-8"))


COMPOSE: Final[Service] = read(FILE)
SERVICES: Final[dict[str, Service]] = COMPOSE["services"]
OURS: Final = [name for name, service in SERVICES.items() if service["image"] == "reaction-tally"]
EVERY: Final = pytest.mark.parametrize("name", SERVICES)


def environment(name: str) -> dict[str, str]:
    """Return what a service is told where nobody has set anything."""
    given: dict[str, str] = SERVICES[name].get("environment", {})
    return {each: re.sub(r"\$\{\w+:-(.*?)\}", r"\1", text) for each, text in given.items()}


def mounts(name: str) -> dict[str, str]:
    """Return target → source of what a service mounts."""
    return {each.split(":")[1]: each.split(":")[0] for each in SERVICES[name].get("volumes", [])}


def slips(document: Service) -> list[str]:
    """Return what the specification does not allow in a Compose file."""
    schema = json.loads(SPECIFICATION.read_text(encoding="utf-8"))
    # jsonschema does not know the draft by the address in the schema.
    return [
        f"{error.json_path}: {error.message}"
        for error in Draft7Validator(schema).iter_errors(document)
    ]


def test_it_is_what_the_specification_allows() -> None:
    """By its own schema, which knows no other field: a slip is not left to whoever starts it."""
    assert slips(COMPOSE) == []


def test_a_slip_would_be_noticed() -> None:
    """The schema is one that refuses."""
    wrong = {
        **COMPOSE,
        "services": {**SERVICES, "redis": {**SERVICES["redis"], "mem_limits": "1g"}},
    }

    (slip,) = slips(wrong)
    assert slip.startswith("$.services.redis: 'mem_limits'")


def test_compose_takes_it() -> None:
    """Docker's own, of whatever version is there; no engine is needed to be asked."""
    compose = [shutil.which("docker") or "", "compose"]
    if (
        not compose[0]
        or subprocess.run([*compose, "version"], capture_output=True, check=False).returncode
    ):
        pytest.skip(untried("docker compose", "that it takes deploy/compose.yaml"))
    subprocess.run([*compose, "-f", FILE, "config", "--quiet"], check=True, timeout=SECONDS)


def test_everything_the_picture_needs_is_there() -> None:
    """A worker, its Redis, a PubNub with users, and who watches."""
    assert set(SERVICES) == {"worker", "redis", "emulator", "load", "prometheus", "grafana"}


def test_a_redis_that_is_full_refuses_writes_before_it_is_killed() -> None:
    """Its own limit leaves a quarter of the container's for what a fork copies."""
    size = {"k": 1024, "m": 1024**2, "g": 1024**3}
    command, limit = SERVICES["redis"]["command"], SERVICES["redis"]["mem_limit"]
    own = command[command.index("--maxmemory") + 1].removesuffix("b")

    assert int(own[:-1]) * size[own[-1]] <= 0.75 * int(limit[:-1]) * size[limit[-1]]


@EVERY
def test_every_image_is_built_here_or_of_one_version(name: str) -> None:
    """Of all its numbers: 7-alpine is another server every month."""
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
def test_its_ports_are_for_this_machine(name: str) -> None:
    """Bound to loopback: nothing of it has a password."""
    assert all(port.startswith("127.0.0.1:") for port in SERVICES[name].get("ports", []))


@EVERY
def test_what_it_mounts_exists_and_is_not_its_own_to_change(name: str) -> None:
    """A file that is missing would be made, as a folder."""
    for each in SERVICES[name].get("volumes", []):
        source = each.split(":")[0]
        if source.startswith("./"):
            assert (FOLDER / source).exists()
            assert each.endswith(":ro")
        else:
            assert source in COMPOSE["volumes"]


@EVERY
def test_it_tells_whether_it_is_well(name: str) -> None:
    """By a check of its own or the image's; but for who serves nothing."""
    check = SERVICES[name].get("healthcheck", {})
    image_checks = name == "worker"

    assert ("test" in check) == (name not in {"worker", "load"})
    assert image_checks or "test" in check or check == {"disable": True}


def test_who_is_waited_for_is_there_and_has_a_check() -> None:
    """Or it would be waited for until the end of days."""
    for service in SERVICES.values():
        for name, how in service.get("depends_on", {}).items():
            assert (how["condition"], "test" in SERVICES[name]["healthcheck"]) == (
                "service_healthy",
                True,
            )


def test_the_workers_settings_are_settings() -> None:
    """Good ones, where nobody has set anything; the channels are those that the users are in."""
    given = environment("worker")

    assert given.keys() <= FIELDS.keys()
    settings = Settings.model_validate({name: text for name, text in given.items() if text})
    assert settings.channels == CHANNELS
    assert (settings.origin, settings.redis_url) == (
        _address("emulator"),
        f"redis://{_address('redis')}/0",
    )


def test_the_commands_are_the_programs() -> None:
    """Read by the parser that will read them there."""
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
    """Compose kills after ten seconds unless it is told otherwise."""
    given = Settings.model_validate(
        {name: text for name, text in environment("worker").items() if text}
    )

    assert (
        int(SERVICES["worker"]["stop_grace_period"].removesuffix("s")) >= given.drain_seconds + 10
    )


async def test_the_users_react_until_they_are_told_to_stop() -> None:
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
                _, said = await process.communicate()
                assert (process.returncode, said.decode()) == (0, "")
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()


def test_prometheus_scrapes_the_worker_and_has_the_alerts() -> None:
    """Its target is the port of the image; the rules are where the configuration wants them."""
    config = read(FOLDER / "prometheus/prometheus.yml")
    *_, image = stages((ROOT / "Dockerfile").read_text(encoding="utf-8"))
    targets = [
        each
        for job in config["scrape_configs"]
        for group in job["static_configs"]
        for each in group["targets"]
    ]
    there = mounts("prometheus")

    assert targets == [f"worker:{image.last('EXPOSE').text}"]
    assert config["rule_files"] == ["alerts.yml"]
    assert there["/etc/prometheus/alerts.yml"] == "./prometheus/alerts.yml"
    told = dict(word.removeprefix("--").split("=") for word in SERVICES["prometheus"]["command"])
    assert told["config.file"] in there
    assert there[told["storage.tsdb.path"]] in COMPOSE["volumes"]


@needs("promtool", "that Prometheus takes deploy/prometheus/prometheus.yml")
def test_prometheus_takes_its_configuration() -> None:
    """By promtool, rules and all."""
    command = [
        shutil.which("promtool") or "",
        "check",
        "config",
        str(FOLDER / "prometheus/prometheus.yml"),
    ]
    checked = subprocess.run(command, capture_output=True, text=True, check=False, timeout=SECONDS)

    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_grafana_has_the_dashboard_and_where_its_figures_come_from() -> None:
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
