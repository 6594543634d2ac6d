"""A bill of materials in the form of CycloneDX, from the lock file alone; ``make sbom`` writes it.

It lists what ``make install`` installs. The image has Debian's packages, too: for those the
Dockerfile names the option of ``docker buildx build``.
"""

import json
import re
import sys
from pathlib import Path
from typing import Any, Final

from worker import __version__

LOCK: Final = Path(__file__).parents[1] / "requirements.lock"
OWN: Final = ("reaction-tally-worker", "reaction-tally")
"""Our own distributions: the service, and the client in it."""
_ENTRY: Final = re.compile(r"^([\w.-]+)==(\S+)((?:.*\\\n)*.*)", re.MULTILINE)
_HASH: Final = re.compile(r"--hash=sha256:([0-9a-f]{64})")


def sbom() -> dict[str, Any]:
    """Return the document. The same lock always gives the same one."""
    service, client = (_component(name, __version__) for name in OWN)
    locked = [_locked(*entry) for entry in _ENTRY.findall(LOCK.read_text(encoding="utf-8"))]
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": {**service, "type": "application"}},
        "components": [client, *locked],
    }


def _component(name: str, version: str) -> dict[str, Any]:
    purl = f"pkg:pypi/{name}@{version}"
    return {
        "type": "library",
        "bom-ref": purl,
        "name": name,
        "version": version,
        "purl": purl,
    }


def _locked(name: str, version: str, rest: str) -> dict[str, Any]:
    """Return a component with the hashes of all its files.

    One with a marker is installed on some platforms or Pythons only.
    """
    is_everywhere = ";" not in rest.partition("\\")[0]
    hashes = [{"alg": "SHA-256", "content": digest} for digest in _HASH.findall(rest)]
    scope = "required" if is_everywhere else "optional"
    return {**_component(name, version), "scope": scope, "hashes": hashes}


if __name__ == "__main__":
    json.dump(sbom(), sys.stdout, indent=1)
    sys.stdout.write("\n")
