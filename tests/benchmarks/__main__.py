"""Measure: ``make bench``, or ``python -m tests.benchmarks [NAME…] --runs 5``."""

import argparse
import asyncio
import importlib
import json
import pkgutil
import sys
from functools import partial
from typing import Final

from rich.console import Console

import tests.benchmarks
from tests.benchmarks import report
from tests.benchmarks.harness import Benchmark, measure
from worker.telemetry.logs import configure

RUNS: Final = 5


def benchmarks() -> dict[str, Benchmark]:
    """Return name → benchmark, of every module here."""
    found = {}
    for module in pkgutil.iter_modules(tests.benchmarks.__path__):
        if not module.name.startswith("_"):
            names = vars(importlib.import_module(f"tests.benchmarks.{module.name}"))
            benchmarks = [value for value in names.values() if isinstance(value, Benchmark)]
            found.update({benchmark.name: benchmark for benchmark in benchmarks})
    return found


def _say(text: str, number: int) -> None:
    sys.stderr.write(text.format(number + 1))


async def run(chosen: list[Benchmark], runs: int, size: float, *, as_json: bool, save: bool) -> int:
    """Measure and print; return an exit code: 1 if a result was wrong, or a benchmark failed.

    The other benchmarks go on.
    """
    terminal = Console(stderr=as_json, width=None if sys.stdout.isatty() else 140)
    baseline = report.load()
    results, failed = {}, 0
    for benchmark in chosen:
        say = partial(_say, f"{benchmark.name}: round {{}} of {runs}\n")
        try:
            results[benchmark.name] = await measure(benchmark, runs, size, say)
        except Exception as error:
            kind = type(error).__name__
            terminal.print(f"{benchmark.name}: {kind}: {error}", markup=False)
            failed += 1
        else:
            terminal.print(report.table(benchmark, results[benchmark.name], baseline))
    if as_json:
        sys.stdout.write(json.dumps(report.document(results), ensure_ascii=False) + "\n")
    if save:
        report.save(results)
    return 1 if failed else 0


def main() -> int:
    """Read the command line and measure."""
    known = benchmarks()
    arguments = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    arguments.add_argument(
        "names", nargs="*", metavar="NAME", help=f"of {', '.join(known)}; default: all"
    )
    arguments.add_argument(
        "--runs", type=int, default=RUNS, help="rounds; each measures every contender once"
    )
    arguments.add_argument(
        "--size", type=float, default=1, help="a part of the work, from 0 to 1: a glance, no figure"
    )
    arguments.add_argument(
        "--json", action="store_true", help="print one JSON document, every value in it"
    )
    arguments.add_argument("--save", action="store_true", help="record the medians as the baseline")
    chosen = arguments.parse_args()
    if unknown := set(chosen.names) - known.keys():
        arguments.error(
            f"no such benchmark: {', '.join(sorted(unknown))}. There are {', '.join(known)}."
        )
    if chosen.save and chosen.size != 1:
        arguments.error("--save records the whole work only: leave --size out.")
    configure("json", "error")
    wanted = [known[name] for name in chosen.names or known]
    return asyncio.run(run(wanted, chosen.runs, chosen.size, as_json=chosen.json, save=chosen.save))


if __name__ == "__main__":
    sys.exit(main())
