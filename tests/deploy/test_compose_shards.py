"""``deploy/compose.shards.yaml`` over ``deploy/compose.yaml``: workers with a shard each."""

import shutil
from typing import Any, Final

import pytest

from tests.deploy.compose_files import FOLDER, Service, merged, read, slips
from tests.deploy.needed import needs, run, untried
from worker.settings import Settings

FILES: Final = (FOLDER / "compose.yaml", FOLDER / "compose.shards.yaml")
ALONE, ABOVE = map(read, FILES)
BOTH: Final[Service] = merged(ALONE, ABOVE)
SERVICES: Final[dict[str, Service]] = BOTH["services"]
WORKERS: Final = {name: each for name, each in SERVICES.items() if name.startswith("worker")}
SCRAPED: Final = "/etc/prometheus/prometheus.yml"


def test_both_files_fit_the_specification() -> None:
    """Each alone, and together."""
    assert slips(ABOVE) == []
    assert slips(BOTH) == []


def test_compose_accepts_both_files() -> None:
    """Any version of Docker Compose; no engine is needed."""
    docker = shutil.which("docker")
    if not docker or run(docker, "compose", "version").returncode:
        pytest.skip(untried("docker compose", "that it takes deploy/compose.shards.yaml"))
    below, above = FILES
    checked = run(docker, "compose", "-f", below, "-f", above, "config", "--quiet")
    assert checked.returncode == 0, checked.stderr


def test_each_shard_has_one_worker() -> None:
    """So each channel has one. The program takes the setting."""
    said = [worker["environment"]["TALLY_SHARD"] for worker in WORKERS.values()]
    settings = [
        Settings.model_validate(
            {"PUBNUB_SUBSCRIBE_KEY": "demo", "TALLY_CHANNELS": "room", "TALLY_SHARD": shard}
        )
        for shard in said
    ]

    assert said == [f"{index}/{len(WORKERS)}" for index in range(len(WORKERS))]
    assert [str(each.shard) for each in settings] == said


@pytest.mark.parametrize("name", sorted(WORKERS.keys() - {"worker"}))
def test_a_further_worker_is_the_first_one_but_for_its_shard(name: str) -> None:
    """Its image is the first one's, and its port on this machine is its own."""

    def compared(service: Service) -> Service:
        environment = {**service["environment"], "TALLY_SHARD": ""}
        kept = {field: service[field] for field in service.keys() - {"build", "ports"}}
        return {**kept, "environment": environment}

    assert compared(WORKERS[name]) == compared(WORKERS["worker"])


def test_each_worker_has_its_port_on_loopback() -> None:
    """The same in each container, another one on this machine."""
    ports = [port for worker in WORKERS.values() for port in worker["ports"]]
    published = [port.removesuffix(":8080") for port in ports]

    assert len(set(published)) == len(WORKERS) == len(ports)
    assert all(port.startswith("127.0.0.1:") for port in published)


def test_prometheus_scrapes_each_worker() -> None:
    """In one job, as the alert about missing shards counts them; all else is as for one worker."""
    mounts = [mount.split(":") for mount in SERVICES["prometheus"]["volumes"]]
    (mounted,) = [source for source, target, *_ in mounts if target == SCRAPED]
    many, one = read(FOLDER / mounted), read(FOLDER / "prometheus/prometheus.yml")

    assert _targets(many) == [f"{name}:8080" for name in WORKERS]
    many["scrape_configs"][0]["static_configs"] = one["scrape_configs"][0]["static_configs"]
    assert many == one


@needs("promtool", "that Prometheus takes deploy/prometheus/prometheus.shards.yml")
def test_promtool_accepts_the_configuration() -> None:
    """With the rules."""
    checked = run("promtool", "check", "config", FOLDER / "prometheus/prometheus.shards.yml")

    assert checked.returncode == 0, checked.stdout + checked.stderr


def _targets(config: Any) -> list[str]:
    """Return the targets of the only job."""
    ((group,),) = [job["static_configs"] for job in config["scrape_configs"]]
    return list(group["targets"])
