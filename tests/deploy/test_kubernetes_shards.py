"""``deploy/kubernetes-shards`` and ``deploy/kubernetes-two-sets``: workers placed as shards."""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from shutil import copytree
from typing import Any, Final

import kubernetes_validate
import pytest

from tests.deploy.dockerfile import ROOT
from tests.deploy.invocations import arguments
from tests.deploy.kustomize import (
    NEWEST,
    Manifest,
    documents,
    expanded,
    expect_valid,
    name_of,
    rendered,
    versions,
)
from tests.deploy.needed import needs
from worker import __version__
from worker.errors import ExitCode
from worker.settings import Settings

DEPLOY: Final = ROOT / "deploy"
BASE: Final = DEPLOY / "kubernetes"
SHARDS: Final = DEPLOY / "kubernetes-shards"
TWO_SETS: Final = DEPLOY / "kubernetes-two-sets"
OLDEST: Final = 29
"""1.29: there ``backoffLimitPerIndex`` is in force; the label of a pod's number is since 1.28."""
COUNT: Final = 3
"""Shards in the manifests."""
NUMBER_LABEL: Final = "apps.kubernetes.io/pod-index"

FILE: Final = SHARDS / "workers/statefulset.yaml"
(RAW_SET,) = documents(FILE)
(RAW_BACKFILL,) = documents(SHARDS / "backfill.yaml")
(DEPLOYMENT,) = documents(BASE / "deployment.yaml")
SET: Final = "StatefulSet/tally"
SECOND_SET: Final = "StatefulSet/tally-b"

needs_kustomize: Final = needs("kubectl", "that kustomize makes shards of the manifests")


def pod_of(manifest: Manifest) -> Manifest:
    """Return the template of the pods of a StatefulSet, a Deployment or a CronJob."""
    spec = manifest["spec"]
    template: Manifest = spec.get("jobTemplate", {"spec": spec})["spec"]["template"]
    return template


def container_of(manifest: Manifest) -> Manifest:
    """Return the only container."""
    (container,) = pod_of(manifest)["spec"]["containers"]
    return dict(container)


def shards_of(stateful_set: Manifest) -> list[str]:
    """Return ``TALLY_SHARD`` of each pod, as its kubelet makes it."""
    variables: list[Manifest] = container_of(stateful_set)["env"]
    return [
        _environment(variables, str(index))["TALLY_SHARD"]
        for index in range(stateful_set["spec"]["replicas"])
    ]


def _environment(variables: list[Manifest], index: str) -> dict[str, str]:
    """Return the variables of a pod: each may name those before it."""
    known: dict[str, str] = {}
    for variable in variables:
        if "value" in variable:
            known[variable["name"]] = expanded(variable["value"], known)
        else:
            path = variable["valueFrom"]["fieldRef"]["fieldPath"]
            assert path == f"metadata.labels['{NUMBER_LABEL}']"
            known[variable["name"]] = index
    return known


def backfills_of(cron_job: Manifest) -> list[str]:
    """Return the shard that each pod of the Indexed Job reads."""
    work = cron_job["spec"]["jobTemplate"]["spec"]
    assert work["completionMode"] == "Indexed"
    assert work["parallelism"] == work["completions"]
    words = container_of(cron_job)["args"]
    said = []
    for index in range(work["completions"]):
        given = {"JOB_COMPLETION_INDEX": str(index)}
        command, options = arguments([expanded(word, given) for word in words])
        assert (command, options["as_json"]) == ("backfill", True)
        said.append(str(options["shard"]))
    return said


def images_of(manifests: dict[str, Manifest]) -> set[str]:
    """Return the images of all containers."""
    kinds = ("StatefulSet", "CronJob")
    owners = [item for item in manifests.values() if item["kind"] in kinds]
    return {container_of(item)["image"] for item in owners}


def all_of(count: int) -> list[str]:
    """Return the shards there must be, each once."""
    return [f"{index}/{count}" for index in range(count)]


# --- what Kubernetes takes ----------------------------------------------------------------


@pytest.mark.parametrize("version", versions(OLDEST))
@pytest.mark.parametrize("manifest", [RAW_SET, RAW_BACKFILL], ids=name_of)
def test_kubernetes_accepts_what_is_written(manifest: Manifest, version: str) -> None:
    """From the oldest version to the newest."""
    expect_valid(manifest, version)


@needs_kustomize
@pytest.mark.parametrize("version", versions(OLDEST))
@pytest.mark.parametrize("folder", [SHARDS, TWO_SETS], ids=lambda folder: folder.name)
def test_kubernetes_accepts_what_is_applied(folder: Path, version: str) -> None:
    """Every manifest, as kustomize makes it."""
    for manifest in rendered(folder).values():
        expect_valid(manifest, version)


SLIPS: Final[dict[str, Callable[[Any], None]]] = {
    "podManagmentPolicy": lambda spec: spec.update(podManagmentPolicy="Parallel"),
    "replicas": lambda spec: spec.update(replicas="3"),
    "maxSkews": lambda spec: spread_of(spec)[0].update(maxSkews=1),
    "topologyKey": lambda spec: spread_of(spec)[1].pop("topologyKey"),
    "fieldPath": lambda spec: spec["template"]["spec"]["containers"][0]["env"][0].update(
        valueFrom={"fieldRef": {}}
    ),
}


def spread_of(spec: Manifest) -> list[Manifest]:
    """Return the constraints that spread pods."""
    constraints: list[Manifest] = spec["template"]["spec"]["topologySpreadConstraints"]
    return constraints


@pytest.mark.parametrize("slip", SLIPS)
def test_a_slip_in_the_set_is_noticed(slip: str) -> None:
    """A field that is none, one that is missing, and a value of another type."""
    wrong = json.loads(json.dumps(RAW_SET))
    SLIPS[slip](wrong["spec"])

    with pytest.raises(kubernetes_validate.ValidationError, match=slip):
        expect_valid(wrong, f"1.{NEWEST}")


def test_the_oldest_version_is_documented() -> None:
    """Where an installation begins, and in the manifests."""
    install = (DEPLOY / "install.md").read_text(encoding="utf-8")
    kustomization = (SHARDS / "kustomization.yaml").read_text(encoding="utf-8")

    assert f"Kubernetes 1.{OLDEST} and newer" in install
    assert f"Kubernetes 1.{OLDEST} or newer" in kustomization


# --- which shard a pod is -----------------------------------------------------------------


@needs_kustomize
def test_each_pod_is_a_shard_of_its_own() -> None:
    """Its number of as many as there are, in a form that the worker takes."""
    said = shards_of(rendered(SHARDS)[SET])

    assert said == all_of(COUNT)
    for shard in said:
        assert str(Settings.model_validate({"TALLY_SHARD": shard}).shard) == shard


@needs_kustomize
def test_each_pod_of_the_backfill_reads_one_shard() -> None:
    """Kubernetes gives each pod of an Indexed Job its number."""
    assert backfills_of(rendered(SHARDS)["CronJob/tally-backfill"]) == all_of(COUNT)


@needs_kustomize
@pytest.mark.parametrize("count", [1, 5])
def test_the_number_of_shards_stands_in_one_place(count: int, tmp_path: Path) -> None:
    """Who changes it there has changed it everywhere."""
    for folder in (BASE, SHARDS):
        copytree(folder, tmp_path / folder.name)
    copy = tmp_path / FILE.relative_to(DEPLOY)
    text = FILE.read_text(encoding="utf-8")
    assert text.count(f"replicas: {COUNT}\n") == 1
    copy.write_text(text.replace(f"replicas: {COUNT}\n", f"replicas: {count}\n"), "utf-8")

    made = rendered(tmp_path / SHARDS.name)

    assert shards_of(made[SET]) == all_of(count)
    assert backfills_of(made["CronJob/tally-backfill"]) == all_of(count)


@needs_kustomize
def test_an_overlay_may_change_the_number(tmp_path: Path) -> None:
    """With both blocks of replacements, as the comment says."""
    for folder in (BASE, SHARDS):
        copytree(folder, tmp_path / folder.name)
    blocks = [
        block
        for path in (SHARDS, SHARDS / "workers")
        for block in documents(path / "kustomization.yaml")[0]["replacements"]
        if block["source"]["fieldPath"] == "spec.replicas"
    ]
    overlay = {
        "resources": [f"../{SHARDS.name}"],
        "replicas": [{"name": "tally", "count": 5}],
        "replacements": blocks,
    }
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "kustomization.yaml").write_text(json.dumps(overlay), "utf-8")

    made = rendered(mine)

    assert shards_of(made[SET]) == all_of(5)
    assert backfills_of(made["CronJob/tally-backfill"]) == all_of(5)


def test_a_number_without_its_pod_is_refused() -> None:
    """`kubectl scale` makes more pods than there are shards."""
    with pytest.raises(ValueError, match="TALLY_SHARD"):
        Settings.model_validate({"TALLY_SHARD": f"{COUNT}/{COUNT}"})


def test_a_set_without_kustomize_is_refused() -> None:
    """A placeholder is no number, so nobody applies the files one by one."""
    assert shards_of(RAW_SET) == [f"{index}/REPLICAS" for index in range(COUNT)]
    with pytest.raises(ValueError, match="TALLY_SHARD"):
        Settings.model_validate({"TALLY_SHARD": "0/REPLICAS"})


def test_a_cluster_that_numbers_no_pods_is_refused() -> None:
    """Before 1.28, and where the label is switched off, a pod has no number."""
    with pytest.raises(ValueError, match="TALLY_SHARD"):
        Settings.model_validate({"TALLY_SHARD": "/3"})


# --- the set beside the Deployment --------------------------------------------------------


@needs_kustomize
def test_shards_change_the_worker_alone() -> None:
    """No Deployment, a set and a backfill; all else is as in deploy/kubernetes."""
    made = rendered(SHARDS)
    others = rendered(BASE)
    del others["Deployment/tally"]

    assert made.keys() - others.keys() == {SET, "CronJob/tally-backfill"}
    assert {name: made[name] for name in others} == others


def test_a_shard_is_a_pod_of_the_deployment() -> None:
    """But for its label, its number and where it runs."""
    pod = pod_of(RAW_SET)
    other = json.loads(json.dumps(pod_of(DEPLOYMENT)))
    assert pod["metadata"]["labels"] == {**other["metadata"]["labels"], "tally-set": "a"}

    container = container_of(RAW_SET)
    number, shard, *variables = container["env"]
    assert [number["name"], shard["name"]] == ["POD_INDEX", "TALLY_SHARD"]
    spec = {**pod["spec"], "containers": [{**container, "env": variables}]}
    del spec["topologySpreadConstraints"], other["spec"]["affinity"]
    assert spec == other["spec"]


def test_shards_start_together_and_are_replaced_one_by_one() -> None:
    """As long as one must stay ready as in the Deployment."""
    spec = RAW_SET["spec"]

    assert spec["podManagementPolicy"] == "Parallel"
    assert spec["updateStrategy"] == {"type": "RollingUpdate"}
    for name in ("minReadySeconds", "revisionHistoryLimit"):
        assert spec[name] == DEPLOYMENT["spec"][name]
    assert "volumeClaimTemplates" not in spec


def test_the_set_selects_its_own_pods() -> None:
    """By all their labels; its Service is there, and has no address of its own."""
    (service,) = documents(BASE / "service.yaml")
    labels = pod_of(RAW_SET)["metadata"]["labels"]

    assert RAW_SET["spec"]["selector"] == {"matchLabels": labels}
    assert service["metadata"]["name"] == RAW_SET["spec"]["serviceName"]
    assert service["spec"]["clusterIP"] == "None"
    assert service["spec"]["selector"].items() <= labels.items()


def test_shards_spread_over_zones_and_nodes() -> None:
    """All workers are counted; one node takes them all, because it is only a preference."""
    labels = pod_of(DEPLOYMENT)["metadata"]["labels"]
    spread = spread_of(RAW_SET["spec"])

    assert [item["topologyKey"] for item in spread] == [
        "topology.kubernetes.io/zone",
        "kubernetes.io/hostname",
    ]
    for item in spread:
        assert (item["maxSkew"], item["whenUnsatisfiable"]) == (1, "ScheduleAnyway")
        assert item["labelSelector"] == {"matchLabels": labels}


def test_the_backfill_runs_only_when_it_is_asked() -> None:
    """So an apply never meets a Job that it may not change."""
    assert RAW_BACKFILL["spec"]["suspend"] is True


@needs_kustomize
def test_the_backfill_needs_no_worker() -> None:
    """Its step in the runbook leaves out what has the label of a worker."""
    made = rendered(SHARDS)
    label = "app.kubernetes.io/component"
    left_out = {name for name in made if made[name]["metadata"]["labels"].get(label) == "worker"}
    assert left_out == {SET, "Service/tally"}

    runbook = (DEPLOY / "runbook.md").read_text(encoding="utf-8")
    assert f"kubectl apply -k deploy/{SHARDS.name} -l '{label}!=worker'" in runbook


def test_the_backfill_is_a_pod_of_the_nightly_jobs() -> None:
    """But for its command and its label."""
    reconcile = documents(BASE / "cronjobs.yaml")[0]
    pods = [
        {**pod_of(job)["spec"], "containers": [{**container_of(job), "args": []}]}
        for job in (RAW_BACKFILL, reconcile)
    ]

    assert pods[0] == pods[1]


def test_a_shard_that_fails_takes_no_other_one_with_it() -> None:
    """A wrong configuration is wrong for all; only an unfit Redis is tried again."""
    work = RAW_BACKFILL["spec"]["jobTemplate"]["spec"]
    codes = {
        rule["action"]: set(rule["onExitCodes"]["values"])
        for rule in work["podFailurePolicy"]["rules"]
        if "onExitCodes" in rule
    }

    assert codes.pop("FailJob") == {ExitCode.USAGE}
    retried = {ExitCode.DONE, ExitCode.REDIS_UNFIT, ExitCode.USAGE}
    assert codes == {"FailIndex": set(ExitCode) - retried}
    assert work["backoffLimitPerIndex"] > 0
    assert "backoffLimit" not in work


@needs_kustomize
def test_the_image_stands_in_one_place(tmp_path: Path) -> None:
    """In deploy/kubernetes: workers and jobs never differ."""
    for folder in (BASE, SHARDS, TWO_SETS):
        copytree(folder, tmp_path / folder.name)
    copy = tmp_path / BASE.name / "kustomization.yaml"
    text = copy.read_text(encoding="utf-8")
    copy.write_text(text.replace("newName: reaction-tally", "newName: mine/tally"), "utf-8")

    for folder in (SHARDS, TWO_SETS):
        assert images_of(rendered(folder)) == {f"reaction-tally:{__version__}"}
        assert images_of(rendered(tmp_path / folder.name)) == {f"mine/tally:{__version__}"}


# --- two sets -----------------------------------------------------------------------------


@needs_kustomize
def test_a_second_set_is_one_more_manifest() -> None:
    """Settings, secret, budget, policies and nightly jobs are there once."""
    assert rendered(TWO_SETS).keys() - rendered(SHARDS).keys() == {SECOND_SET}
    assert rendered(SHARDS).keys() <= rendered(TWO_SETS).keys()


@needs_kustomize
def test_two_sets_differ_in_name_and_label() -> None:
    """Neither selects the other one's pods."""
    made = rendered(TWO_SETS)
    first, second = made[SET], made[SECOND_SET]
    assert shards_of(first) == shards_of(second) == all_of(COUNT)

    for name, stateful_set in (("a", first), ("b", second)):
        selector = stateful_set["spec"]["selector"]["matchLabels"]
        assert selector == pod_of(stateful_set)["metadata"]["labels"]
        assert selector.pop("tally-set") == name
        del pod_of(stateful_set)["metadata"]["labels"]["tally-set"]
    assert first["spec"] == second["spec"]


@needs_kustomize
def test_the_second_set_may_have_its_own_number(tmp_path: Path) -> None:
    """Without the marks of comments in its kustomization."""
    for folder in (BASE, SHARDS, TWO_SETS):
        copytree(folder, tmp_path / folder.name)
    copy = tmp_path / TWO_SETS.name / "b/kustomization.yaml"
    said, mark, rest = copy.read_text(encoding="utf-8").partition("# replicas:\n")
    assert mark
    lines = [line.removeprefix("# ") for line in (mark + rest).splitlines()]
    copy.write_text(said + "\n".join(lines) + "\n", "utf-8")

    made = rendered(tmp_path / TWO_SETS.name)

    assert shards_of(made[SET]) == all_of(COUNT)
    assert shards_of(made[SECOND_SET]) == all_of(2)
    blocks = documents(SHARDS / "workers/kustomization.yaml")[0]["replacements"]
    assert documents(copy)[0]["replacements"] == blocks


@needs_kustomize
def test_one_budget_of_evictions_is_for_both_sets() -> None:
    """So the two pods of a shard are never evicted together."""
    made = rendered(TWO_SETS)
    budget = made["PodDisruptionBudget/tally"]["spec"]
    selector = budget["selector"]["matchLabels"]

    assert budget["maxUnavailable"] == 1
    for name in (SET, SECOND_SET):
        assert selector.items() <= pod_of(made[name])["metadata"]["labels"].items()


@needs_kustomize
def test_the_two_pods_of_a_shard_are_on_two_nodes() -> None:
    """Those with the same number; in two zones, if there are two."""
    for name in (SET, SECOND_SET):
        paired = [
            (item["topologyKey"], item["whenUnsatisfiable"])
            for item in spread_of(rendered(TWO_SETS)[name]["spec"])
            if item.get("matchLabelKeys") == [NUMBER_LABEL]
        ]
        assert paired == [
            ("topology.kubernetes.io/zone", "ScheduleAnyway"),
            ("kubernetes.io/hostname", "DoNotSchedule"),
        ]


@needs_kustomize
@pytest.mark.parametrize("name", [SET, SECOND_SET])
def test_constraints_obey_rules_that_no_schema_knows(name: str) -> None:
    """Kubernetes refuses the same pair twice, and a key that the selector has, too."""
    spread = spread_of(rendered(TWO_SETS)[name]["spec"])
    pairs = Counter((item["topologyKey"], item["whenUnsatisfiable"]) for item in spread)

    assert set(pairs.values()) == {1}
    for item in spread:
        keys = item.get("matchLabelKeys", [])
        assert not set(keys) & item["labelSelector"]["matchLabels"].keys()
