"""Manifests as ``kubectl apply -k`` sends them, and Kubernetes' own schemas for them."""

import json
import re
from functools import cache
from pathlib import Path
from typing import Any, Final

import kubernetes_validate
import yaml

from tests.deploy.needed import run

NEWEST: Final = 37
"""Of Kubernetes: the newest whose schemas are here."""
OPERATORS: Final = frozenset({"PodMonitor", "PrometheusRule"})
"""Kinds of the Prometheus operator, of which there is no schema here."""

Manifest = dict[str, Any]


def documents(path: Path) -> list[Manifest]:
    """Return the manifests of a file."""
    return list(yaml.safe_load_all(path.read_text(encoding="utf-8")))


@cache
def _rendered(folder: Path) -> str:
    made = run("kubectl", "kustomize", folder)
    assert made.returncode == 0, made.stderr
    return json.dumps(list(yaml.safe_load_all(made.stdout)))


def rendered(folder: Path) -> dict[str, Manifest]:
    """Return what kustomize makes of a folder, by kind and name. The caller may change it."""
    manifests: list[Manifest] = json.loads(_rendered(folder))
    named = {name_of(manifest): manifest for manifest in manifests}
    assert len(named) == len(manifests)
    return named


def name_of(manifest: Manifest) -> str:
    """Return kind and name."""
    return f"{manifest['kind']}/{manifest['metadata']['name']}"


def expect_valid(manifest: Manifest, version: str) -> None:
    """Expect that this version of Kubernetes takes a manifest; it refuses unknown fields."""
    if manifest["kind"] not in OPERATORS:
        assert kubernetes_validate.validate(manifest, version, strict=True) == version


def versions(oldest: int) -> list[str]:
    """Return the versions of Kubernetes from 1.``oldest`` to the newest."""
    return [f"1.{minor}" for minor in range(oldest, NEWEST + 1)]


def expanded(text: str, variables: dict[str, str]) -> str:
    """Return a text as a kubelet makes it: ``$(NAME)`` is the variable, if there is one."""
    return re.sub(r"\$\((\w+)\)", lambda match: variables.get(match[1], match[0]), text)
