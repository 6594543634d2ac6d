"""``deploy/kubernetes``: manifests that Kubernetes takes, and that fit the program."""

import json
from typing import Any, Final

import kubernetes_validate
import pytest
import yaml

from tests import operator_manifests
from tests.deploy.dockerfile import ROOT, stages
from tests.deploy.invocations import arguments
from tests.deploy.kustomize import (
    NEWEST,
    OPERATORS,
    Manifest,
    documents,
    expect_valid,
    name_of,
    versions,
)
from tests.deploy.needed import needs, run
from worker import __version__
from worker.errors import ExitCode
from worker.settings import FIELDS, SECRETS, Settings

FOLDER: Final = ROOT / "deploy/kubernetes"
OVERLAY: Final = ROOT / "deploy/kubernetes-overlay/kustomization.yaml"
OLDEST: Final = 27
"""1.27: there ``unhealthyPodEvictionPolicy`` and ``timeZone`` are in force."""

KUSTOMIZATION: Final = documents(FOLDER / "kustomization.yaml")[0]
FILES: Final = [FOLDER / name for name in KUSTOMIZATION["resources"]]
SECRET: Final = documents(FOLDER / "secret.example.yaml")[0]
MANIFESTS: Final = [manifest for file in FILES for manifest in documents(file)]


def of_kind(kind: str) -> list[Manifest]:
    """Return the manifests of one kind."""
    return [manifest for manifest in MANIFESTS if manifest["kind"] == kind]


DEPLOYMENT: Final = of_kind("Deployment")[0]
CRON_JOBS: Final = {manifest["metadata"]["name"]: manifest for manifest in of_kind("CronJob")}


def templates() -> list[Manifest]:
    """Return the template of every pod, the worker's first."""
    jobs = [job["spec"]["jobTemplate"]["spec"]["template"] for job in CRON_JOBS.values()]
    return [DEPLOYMENT["spec"]["template"], *jobs]


BY_LABEL: Final = pytest.mark.parametrize(
    "template",
    templates(),
    ids=lambda template: template["metadata"]["labels"]["app.kubernetes.io/component"],
)


@pytest.mark.parametrize("version", versions(OLDEST))
@pytest.mark.parametrize(
    "manifest",
    [*(manifest for manifest in MANIFESTS if manifest["kind"] not in OPERATORS), SECRET],
    ids=name_of,
)
def test_kubernetes_accepts_a_manifest(manifest: Manifest, version: str) -> None:
    """By its own schema, which refuses unknown fields; from the oldest version to the newest."""
    expect_valid(manifest, version)


def test_the_oldest_version_is_documented() -> None:
    """Where an installation begins."""
    oldest = f"Kubernetes 1.{OLDEST} and newer"
    assert oldest in (ROOT / "deploy/install.md").read_text(encoding="utf-8")


def test_two_replicas_avoid_each_other() -> None:
    """By node, then by zone. A single node takes both, because it is only a preference."""
    spec = DEPLOYMENT["spec"]["template"]["spec"]
    preferred = spec["affinity"]["podAntiAffinity"][
        "preferredDuringSchedulingIgnoredDuringExecution"
    ]
    terms = [term["podAffinityTerm"] for term in preferred]

    assert [term["topologyKey"] for term in terms] == [
        "kubernetes.io/hostname",
        "topology.kubernetes.io/zone",
    ]
    assert all(
        term["labelSelector"]["matchLabels"] == _labels(DEPLOYMENT["spec"]["template"])
        for term in terms
    )


@pytest.mark.parametrize("name", operator_manifests.FILES)
def test_an_operator_gets_the_same_alerts(name: str) -> None:
    """`make manifests` writes these files from deploy/prometheus."""
    assert (FOLDER / name).read_text(encoding="utf-8") == operator_manifests.FILES[name]()


def test_the_rule_is_the_rules_file() -> None:
    """To the last expression."""
    (rule,) = of_kind("PrometheusRule")
    alerts = yaml.safe_load(operator_manifests.ALERTS.read_text(encoding="utf-8"))

    assert rule["apiVersion"] == "monitoring.coreos.com/v1"
    assert rule["spec"] == alerts


def test_the_example_overlay_fits() -> None:
    """It stands on the manifests; each patch has a target, and each path its place there."""
    overlay = documents(OVERLAY)[0]
    assert overlay["resources"] == ["../kubernetes"]
    assert overlay["images"][0]["name"] == KUSTOMIZATION["images"][0]["name"]
    assert overlay["images"][0]["newTag"] == __version__
    (replicas,) = overlay["replicas"]
    assert replicas["name"] == DEPLOYMENT["metadata"]["name"]
    for patch in overlay["patches"]:
        kinds = patch["target"]["kind"].split("|")
        targets = [
            manifest
            for manifest in MANIFESTS
            if manifest["kind"] in kinds and manifest["metadata"]["name"] == patch["target"]["name"]
        ]
        assert len(targets) == len(kinds)
        for operation in yaml.safe_load(patch["patch"]):
            for target in targets:
                expect_place(target, operation)


def expect_place(target: Manifest, operation: dict[str, Any]) -> None:
    """Expect what an operation replaces, or the mapping that it adds to."""
    *folders, last = operation["path"].strip("/").split("/")
    place: Any = target
    for folder in folders:
        place = place[int(folder)] if isinstance(place, list) else place[folder]
    assert (last in place) == (operation["op"] == "replace"), operation


def test_settings_of_the_example_overlay_exist() -> None:
    """A setting that is none would be passed over."""
    overlay = documents(OVERLAY)[0]
    paths = [
        operation["path"]
        for patch in overlay["patches"]
        for operation in yaml.safe_load(patch["patch"])
        if patch["target"]["name"] == "tally-settings"
    ]
    assert {path.rpartition("/")[2] for path in paths} <= FIELDS.keys()


def test_a_slip_is_noticed() -> None:
    """The schema refuses an unknown field."""
    wrong = {**DEPLOYMENT, "spec": {**DEPLOYMENT["spec"], "minReadySecond": 30}}

    with pytest.raises(kubernetes_validate.ValidationError, match="minReadySecond"):
        expect_valid(wrong, f"1.{NEWEST}")


def test_every_manifest_is_applied() -> None:
    """Except the example of a secret, with its placeholders."""
    there = {path.name for path in FOLDER.glob("*.yaml")}

    assert there - set(KUSTOMIZATION["resources"]) == {"kustomization.yaml", "secret.example.yaml"}


@needs("kubectl", "that kustomize makes of the manifests what it says")
def test_kustomize_tags_the_image() -> None:
    """`kubectl apply -k` sends the same manifests, with the tag."""
    made = run("kubectl", "kustomize", FOLDER).stdout
    (image,) = KUSTOMIZATION["images"]

    expected = yaml.safe_load(
        json.dumps(MANIFESTS).replace('"image": "reaction-tally"', f'"image": "{_tagged(image)}"')
    )
    assert sorted(yaml.safe_load_all(made), key=name_of) == sorted(expected, key=name_of)


def test_manifests_name_no_namespace() -> None:
    """The operator chooses it."""
    assert [
        name_of(manifest) for manifest in MANIFESTS if "namespace" in manifest["metadata"]
    ] == []


def test_every_container_has_the_tagged_image() -> None:
    """With this version: a worker and its jobs never differ."""
    (image,) = KUSTOMIZATION["images"]

    assert {
        container["image"]
        for template in templates()
        for container in template["spec"]["containers"]
    } == {image["name"]}
    assert image["newTag"] == __version__


@BY_LABEL
def test_every_pod_has_valid_settings(template: Manifest) -> None:
    """From maps that exist; secrets only from files of the secret."""
    pod, (container,) = template["spec"], template["spec"]["containers"]
    maps = {manifest["metadata"]["name"]: manifest["data"] for manifest in of_kind("ConfigMap")}
    given = {
        name: text
        for source in container["envFrom"]
        for name, text in maps[source["configMapRef"]["name"]].items()
    }
    given |= {variable["name"]: variable["value"] for variable in container["env"]}

    assert given.keys() <= FIELDS.keys()
    assert not given.keys() & set(SECRETS)
    Settings.model_validate(given)

    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    files: dict[str, str] = {}
    for mount in container["volumeMounts"]:
        volume = volumes.pop(mount["name"])
        named = maps[volume["configMap"]["name"]] if "configMap" in volume else SECRET["stringData"]
        assert volume.get("secret", {}).get("secretName") in {None, SECRET["metadata"]["name"]}
        files |= {f"{mount['mountPath']}/{name}": text for name, text in named.items()}
    assert volumes == {}
    assert {path for name, path in given.items() if name.endswith("_FILE")} == files.keys()


@BY_LABEL
def test_commands_are_the_programs_own(template: Manifest) -> None:
    """Read by the program's own parser. `command` would bypass the entry point."""
    (container,) = template["spec"]["containers"]

    assert "command" not in container
    component = _labels(template)["app.kubernetes.io/component"]
    assert arguments(container["args"])[0] == ("run" if component == "worker" else component)


@BY_LABEL
def test_every_pod_is_restricted(template: Manifest) -> None:
    """The restricted standard of pod security, and a read-only root; the user is the image's."""
    pod, (container,) = template["spec"], template["spec"]["containers"]
    *_, image = stages((ROOT / "Dockerfile").read_text(encoding="utf-8"))
    user, _, group = image.last("USER").text.partition(":")

    assert pod["securityContext"] == {
        "runAsNonRoot": True,
        "runAsUser": int(user),
        "runAsGroup": int(group),
        "fsGroup": int(group),
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert pod["automountServiceAccountToken"] is False
    assert pod["serviceAccountName"] in {
        account["metadata"]["name"] for account in of_kind("ServiceAccount")
    }
    assert all(mount["readOnly"] for mount in container["volumeMounts"])
    assert all(
        volume.get("secret", {}).get("defaultMode", 0o440) == 0o440 for volume in pod["volumes"]
    )
    assert not pod.keys() & {"hostNetwork", "hostPID", "hostIPC"}


@BY_LABEL
def test_only_memory_has_a_limit(template: Manifest) -> None:
    """Requests name processor and memory; a limit on the processor would throttle."""
    (container,) = template["spec"]["containers"]

    assert container["resources"]["requests"].keys() == {"cpu", "memory"}
    assert container["resources"]["limits"].keys() == {"memory"}


def test_probes_ask_the_right_page() -> None:
    """A restart during an outage of Redis would mend nothing."""
    (container,) = DEPLOYMENT["spec"]["template"]["spec"]["containers"]
    probes = {
        name: container[f"{name}Probe"]["httpGet"] for name in ("startup", "liveness", "readiness")
    }

    assert {name: probe["path"] for name, probe in probes.items()} == {
        "startup": "/livez",
        "liveness": "/livez",
        "readiness": "/readyz",
    }
    assert {probe["port"] for probe in probes.values()} == {"http"}
    assert _ports(container) == {"http": _image_port()}


def test_the_worker_has_time_to_drain() -> None:
    """And some seconds to end."""
    settings = Settings.model_validate(of_kind("ConfigMap")[0]["data"])

    assert (
        DEPLOYMENT["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
        >= settings.drain_seconds + 10
    )


def test_a_rollout_overlaps() -> None:
    """Two workers side by side are safe; no worker costs lag."""
    strategy = DEPLOYMENT["spec"]["strategy"]

    assert (strategy["type"], strategy["rollingUpdate"]) == (
        "RollingUpdate",
        {"maxSurge": 1, "maxUnavailable": 0},
    )


def test_a_node_can_be_drained() -> None:
    """With one replica, minAvailable 1 would block an eviction for ever."""
    (budget,) = of_kind("PodDisruptionBudget")

    assert (budget["spec"]["maxUnavailable"], "minAvailable" in budget["spec"]) == (1, False)
    assert budget["spec"]["unhealthyPodEvictionPolicy"] == "AlwaysAllow"


def test_selectors_match_the_worker_only() -> None:
    """Deployment, Service, budget and scrape select the worker, and no pod of a job."""
    (service,), (budget,), (monitor,) = (
        of_kind(k) for k in ("Service", "PodDisruptionBudget", "PodMonitor")
    )
    metrics = next(
        policy
        for policy in of_kind("NetworkPolicy")
        if policy["metadata"]["name"] == "tally-metrics"
    )
    selectors = [
        DEPLOYMENT["spec"]["selector"]["matchLabels"],
        service["spec"]["selector"],
        budget["spec"]["selector"]["matchLabels"],
        metrics["spec"]["podSelector"]["matchLabels"],
        monitor["spec"]["selector"]["matchLabels"],
    ]

    for selector in selectors:
        assert [selector.items() <= _labels(template).items() for template in templates()] == [
            True,
            False,
            False,
        ]


def test_network_policies_allow_what_is_needed() -> None:
    """The first is for all pods: DNS, Redis and PubNub; the second is for the monitoring."""
    everyone, metrics = of_kind("NetworkPolicy")
    selector = everyone["spec"]["podSelector"]["matchLabels"]
    assert all(selector.items() <= _labels(template).items() for template in templates())
    assert everyone["spec"]["policyTypes"] == ["Ingress", "Egress"]
    assert "ingress" not in everyone["spec"]
    out = [
        (sorted({port["port"] for port in rule["ports"]}), rule.get("to"))
        for rule in everyone["spec"]["egress"]
    ]
    assert [ports for ports, _ in out] == [[53], [6379], [443]]
    assert all(
        "169.254.0.0/16" in to["ipBlock"]["except"]
        for to in out[2][1]
        if "." in to["ipBlock"]["cidr"]
    )

    assert metrics["spec"]["policyTypes"] == ["Ingress"]
    (rule,) = metrics["spec"]["ingress"]
    assert [port["port"] for port in rule["ports"]] == [_image_port()]
    (source,) = rule["from"]
    assert source == {
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}
    }


def test_the_pod_monitor_is_well_formed() -> None:
    """It is no kind of Kubernetes' own, so there is no schema here."""
    (monitor,), (service,) = of_kind("PodMonitor"), of_kind("Service")
    assert monitor["apiVersion"] == "monitoring.coreos.com/v1"
    assert monitor.keys() == {"apiVersion", "kind", "metadata", "spec"}
    assert monitor["spec"].keys() == {"selector", "podMetricsEndpoints"}
    assert monitor["spec"]["selector"].keys() == {"matchLabels"}
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    assert endpoint.keys() == {"port", "path", "interval", "scrapeTimeout"}
    assert (endpoint["port"], endpoint["path"]) == (service["spec"]["ports"][0]["name"], "/metrics")
    assert int(endpoint["scrapeTimeout"].removesuffix("s")) < int(
        endpoint["interval"].removesuffix("s")
    )

    (port,) = service["spec"]["ports"]
    (container,) = DEPLOYMENT["spec"]["template"]["spec"]["containers"]
    assert _ports(container)[port["targetPort"]] == port["port"]


@pytest.mark.parametrize("name", CRON_JOBS)
def test_a_hopeless_job_fails_at_once(name: str) -> None:
    """Only an unfit Redis and a dead pod are tried again, a few times."""
    job, work = CRON_JOBS[name]["spec"], CRON_JOBS[name]["spec"]["jobTemplate"]["spec"]
    failing = [
        rule["onExitCodes"]
        for rule in work["podFailurePolicy"]["rules"]
        if rule["action"] == "FailJob"
    ]
    (container,) = work["template"]["spec"]["containers"]

    assert [(codes["containerName"], codes["operator"]) for codes in failing] == [
        (container["name"], "In")
    ]
    assert set(failing[0]["values"]) == set(ExitCode) - {ExitCode.DONE, ExitCode.REDIS_UNFIT}
    assert work["template"]["spec"]["restartPolicy"] == "Never"
    assert job["concurrencyPolicy"] == "Forbid"
    assert 0 < work["backoffLimit"] <= 3
    assert job["failedJobsHistoryLimit"] > 0


def test_verify_begins_after_reconcile() -> None:
    """Also if the first begins as late, and lasts as long, as it may."""
    begins = {name: _seconds(job["spec"]["schedule"]) for name, job in CRON_JOBS.items()}
    first = CRON_JOBS["tally-reconcile"]["spec"]
    takes = first["startingDeadlineSeconds"] + first["jobTemplate"]["spec"]["activeDeadlineSeconds"]

    assert begins["tally-reconcile"] + takes <= begins["tally-verify"]
    assert {job["spec"]["timeZone"] for job in CRON_JOBS.values()} == {"Etc/UTC"}


def test_jobs_differ_only_in_command_and_time() -> None:
    """All else is the same."""
    plain = []
    for name, job in CRON_JOBS.items():
        text = yaml.safe_dump(job).replace(name.removeprefix("tally-"), "…")
        other = yaml.safe_load(text)
        del other["spec"]["schedule"], other["spec"]["startingDeadlineSeconds"]
        other["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"][0]["args"] = []
        plain.append(other)

    assert plain[0] == plain[1]


def _labels(template: Manifest) -> dict[str, str]:
    labels: dict[str, str] = template["metadata"]["labels"]
    return labels


def _ports(container: Manifest) -> dict[str, int]:
    return {port["name"]: port["containerPort"] for port in container["ports"]}


def _tagged(image: dict[str, str]) -> str:
    return f"{image['newName']}:{image['newTag']}"


def _image_port() -> int:
    *_, image = stages((ROOT / "Dockerfile").read_text(encoding="utf-8"))
    return int(image.last("EXPOSE").text)


def _seconds(schedule: str) -> int:
    minute, hour, *days = schedule.split()
    assert days == ["*", "*", "*"]
    return int(hour) * 3600 + int(minute) * 60
