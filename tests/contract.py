"""What a release promises to its users; ``make contract`` writes it to ``contract.json``."""

import json
from pathlib import Path
from typing import Any, Final

from reaction_tally.keys import SCHEMA
from tests.deploy import promql
from worker import __version__
from worker.errors import ExitCode
from worker.settings import FIELDS, Settings
from worker.settings.masked import as_text

GOLDEN: Final = Path(__file__).with_name("contract.json")


def contract() -> dict[str, Any]:
    """Return the version, the schema, settings, exit codes and metrics."""
    return {
        "version": __version__,
        "schema": SCHEMA,
        "settings": {
            name: as_text(name, Settings.model_fields[field].default)
            for name, field in FIELDS.items()
        },
        "exit_codes": {code.name: int(code) for code in ExitCode},
        "metrics": {
            promql.documented_name(metric): " ".join((promql.kind(metric), *promql.labels(metric)))
            for metric in promql.ours()
        },
    }


if __name__ == "__main__":
    GOLDEN.write_text(json.dumps(contract(), indent=1) + "\n", encoding="utf-8")
