"""``tally demo``: the worker beside an emulator, a Valkey and a crowd."""

from collections.abc import Sequence

from worker.cli.faults import fault_rates
from worker.cli.interrupts import finish
from worker.cli.output import print_json
from worker.demo import Plan, run_demo
from worker.errors import ExitCode
from worker.telemetry.logs import configure


def show_demo(
    seconds: float,
    rate: float,
    seed: int,
    faults: Sequence[str],
    *,
    as_json: bool,
) -> ExitCode:
    """Run the demo; return ``DIFFERENCES`` if the counts are not the truth."""
    configure(level="error")  # whatever the settings in ``.env`` say: the demo has its own
    plan = Plan(seconds, rate, seed, fault_rates(faults))
    result = finish(run_demo(plan, quiet=as_json))
    if as_json:
        print_json(result.as_json())
    return ExitCode.DIFFERENCES if result.differences else ExitCode.DONE
