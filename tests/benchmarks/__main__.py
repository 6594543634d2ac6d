"""Measure: ``make bench``, or ``python -m tests.benchmarks [NAME…] --runs 5``."""

import argparse
import asyncio
import importlib
import json
import pkgutil
import sys
from typing import Final

from rich.console import Console

import tests.benchmarks
from tests.benchmarks import report
from tests.benchmarks.harness import Benchmark, WrongResultError, measure
from worker.telemetry.logs import configure

RUNS: Final = 5


def benchmarks() -> dict[str, Benchmark]:
    """Return name → benchmark: every module here that has one."""
    modules = [
        importlib.import_module(f"tests.benchmarks.{module.name}")
        for module in pkgutil.iter_modules(tests.benchmarks.__path__)
        if not module.name.startswith("_")
    ]
    one = [module.BENCHMARK for module in modules if hasattr(module, "BENCHMARK")]
    several = [benchmark for module in modules for benchmark in getattr(module, "BENCHMARKS", ())]
    return {benchmark.name: benchmark for benchmark in [*one, *several]}


async def run(chosen: list[Benchmark], runs: int, size: float, *, as_json: bool, save: bool) -> int:
    """Measure, tell, and return an exit code: 1 where a result was wrong."""
    terminal, baseline = (
        Console(stderr=as_json, width=None if sys.stdout.isatty() else 140),
        report.load(),
    )
    results, wrong = {}, 0
    for benchmark in chosen:

        def told(number: int, name: str = benchmark.name) -> None:
            sys.stderr.write(f"{name}: round {number + 1} of {runs}\n")

        try:
            results[benchmark.name] = await measure(benchmark, runs, size, told)
        except WrongResultError as error:
            terminal.print(f"{benchmark.name}: {error}")
            wrong += 1
            continue
        terminal.print(report.table(benchmark, results[benchmark.name], baseline))
    if as_json:
        sys.stdout.write(json.dumps(report.document(results), ensure_ascii=False) + "\n")
    if save:
        report.save(results)
    return 1 if wrong else 0


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
