"""Make the mutants, run the tests on each, and list the survivors. Exit 1 if one is unexplained."""

import argparse
import signal
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue

from tests.mutants.mutator import Mutant
from tests.mutants.targets import TARGETS, Equivalent, equivalents, mutants_of
from tests.mutants.trial import Laboratory, Verdict, laboratories

CONCURRENCY = 2


def main() -> int:
    """Return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument(
        "targets", nargs="*", metavar="FILE", help="part of a target's path; default: all targets"
    )
    parser.add_argument(
        "--line", default="", metavar="TEXT", help="only mutants of lines with this text in them"
    )
    chosen = parser.parse_args()
    parts = chosen.targets or [""]
    targets = [target for target in TARGETS if any(part in target for part in parts)]

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # the copies are removed then, too
    begun, is_well = time.monotonic(), bool(targets)
    with laboratories(CONCURRENCY) as rooms:
        for target in targets:
            mutants = [mutant for mutant in mutants_of(target) if chosen.line in mutant.before]
            is_well &= _check(rooms, target, mutants)
    say(f"{time.monotonic() - begun:.0f} s")
    return 0 if is_well else 1


def _check(rooms: Sequence[Laboratory], target: str, mutants: Sequence[Mutant]) -> bool:
    """Try all mutants of a target; tell whether each is killed, or rightly explained."""
    if not _is_sound(rooms[0], target):
        return False
    verdicts = _try_all(rooms, target, mutants)
    survivors = [mutant for mutant, verdict in verdicts.items() if verdict is Verdict.SURVIVED]
    timed_out = sum(verdict is Verdict.TIMED_OUT for verdict in verdicts.values())
    excuses = [entry for entry in equivalents() if _is_about(entry, mutants)]
    wrong = [entry for entry in excuses if not _is_about(entry, survivors)]
    unexplained = [
        mutant for mutant in survivors if not any(entry.explains(mutant) for entry in excuses)
    ]
    for entry in wrong:
        say(f"excused, although a test notices it: {target}: {entry.before} → {entry.after}")
    for mutant in unexplained:
        say(f"unexplained: {mutant}")
    killed = len(mutants) - len(survivors)
    say(f"{target}: {len(mutants)} made, {killed} killed ({timed_out} by the time limit),")
    say(f"    {len(survivors)} survived, {len(unexplained)} of them unexplained")
    return not unexplained and not wrong


def _is_about(entry: Equivalent, mutants: Sequence[Mutant]) -> bool:
    return any(entry.explains(mutant) for mutant in mutants)


def _is_sound(room: Laboratory, target: str) -> bool:
    """Tell whether a verdict means anything: the tests pass, and they do see the copy's file."""
    if room.run(TARGETS[target]) is not Verdict.SURVIVED:
        say(f"{target}: its tests fail without a mutant\n{room.output()}")
        return False
    nonsense = Mutant(target=target, line=1, before="", after="", text="this is neither")
    if room.try_out(nonsense, TARGETS[target]) is not Verdict.KILLED:
        say(f"{target}: its tests pass whatever it contains")
        return False
    return True


def _try_all(
    rooms: Sequence[Laboratory], target: str, mutants: Sequence[Mutant]
) -> dict[Mutant, Verdict]:
    """Return the verdict on each mutant; say survivors and progress at once."""
    free: SimpleQueue[Laboratory] = SimpleQueue()
    for room in rooms:
        free.put(room)

    def try_out(mutant: Mutant) -> Verdict:
        room = free.get()
        try:
            return room.try_out(mutant, TARGETS[target])
        finally:
            free.put(room)

    verdicts = {}
    pool = ThreadPoolExecutor(len(rooms))
    try:
        for mutant, verdict in zip(mutants, pool.map(try_out, mutants), strict=True):
            verdicts[mutant] = verdict
            if verdict is Verdict.SURVIVED:
                say(f"survived: {mutant}")
            if len(verdicts) % 50 == 0:
                say(f"{target}: {len(verdicts)} of {len(mutants)}")
    finally:  # the copies must not go while a trial is under way
        pool.shutdown(cancel_futures=True)
    return verdicts


def say(text: str) -> None:
    """Print at once: this takes minutes."""
    print(text, flush=True)  # noqa: T201 - a program's output


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
