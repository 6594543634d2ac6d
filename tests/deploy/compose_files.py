"""Compose files: read, merged as Compose does, and compared with the specification."""

import json
from pathlib import Path
from typing import Any, Final

import yaml
from jsonschema import Draft7Validator

from tests.deploy.dockerfile import ROOT

FOLDER: Final = ROOT / "deploy"
SPECIFICATION: Final = Path(__file__).with_name("compose_specification") / "compose-spec.json"
"""The schema of github.com/compose-spec/compose-spec, as of June 2026 (170098b)."""

Service = dict[str, Any]


def read(path: Path) -> Any:
    """Return what a YAML file says."""
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def slips(document: Service) -> list[str]:
    """Return the violations of the specification in a Compose file."""
    schema = json.loads(SPECIFICATION.read_text(encoding="utf-8"))
    # jsonschema does not know the draft by the address in the schema.
    return [
        f"{error.json_path}: {error.message}"
        for error in Draft7Validator(schema).iter_errors(document)
    ]


def merged(below: Any, above: Any) -> Any:
    """Return a file with another one over it, as ``-f BELOW -f ABOVE`` does.

    Texts are replaced, and lists go on; but a volume takes the place of one with its target.
    """
    if isinstance(below, dict) and isinstance(above, dict):
        both = {name: merged(below[name], above[name]) for name in below.keys() & above.keys()}
        return {**below, **above, **both}
    if isinstance(below, list) and isinstance(above, list):
        targets = {_target(item) for item in above}
        return [item for item in below if _target(item) not in targets] + above
    return above


def _target(item: Any) -> Any:
    """Return where a volume is mounted; anything else stands for itself."""
    parts = str(item).split(":")
    is_volume = len(parts) > 1 and parts[1].startswith("/")
    return parts[1] if is_volume else str(item)
