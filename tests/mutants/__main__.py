"""Make the mutants, run the tests on each, and list the survivors. Exit 1 if one of them is not explained."""

import argparse
import signal
import sys
import time
from collections import Counter
from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from queue import SimpleQueue

from tests.mutants.equivalents import FILE, idle, known
from tests.mutants.mutant import Mutant
from tests.mutants.targets import TARGETS, mutants_of
from tests.mutants.trial import Ended, Laboratory, Verdict, laboratories

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
    arguments = parser.parse_args()
    targets = [
        name
        for name in TARGETS
        if not arguments.targets or any(map(name.__contains__, arguments.targets))
    ]

    signal.signal(
        signal.SIGTERM, signal.default_int_handler
    )  # the copies are removed however it ends
    begun, is_well = time.monotonic(), bool(targets)
    with laboratories(CONCURRENCY) as rooms:
        for target in targets:
            is_well &= _check(
                rooms, target, [m for m in mutants_of(target) if arguments.line in m.before]
            )
    for entry in idle(mutant for target in TARGETS for mutant in mutants_of(target)):
        is_well = False
        say(
            f"{FILE.name} excuses a mutant that is not there: {entry.target}: {entry.before} → {entry.after}"
        )
    say(f"{time.monotonic() - begun:.0f} s")
    return 0 if is_well else 1


def _check(rooms: Sequence[Laboratory], target: str, mutants: Sequence[Mutant]) -> bool:
    """Try all mutants of a target; tell whether each is killed, or rightly explained."""
    if not _is_sound(rooms, target):
        return False
    verdicts = Counter[Verdict]()
    survivors: list[Mutant] = []
    with closing(_trials(rooms, target, mutants)) as trials:
        for number, (mutant, ended) in enumerate(trials, 1):
            verdicts[ended.verdict] += 1
            if ended.verdict is Verdict.SURVIVED:
                survivors.append(mutant)
                say(f"survived: {mutant}")
            if number % 50 == 0:
                say(f"{target}: {number} of {len(mutants)}")
    excuses = [entry for entry in known() if any(map(entry.explains, mutants))]
    wrong = [entry for entry in excuses if not any(map(entry.explains, survivors))]
    unexplained = [
        mutant for mutant in survivors if not any(entry.explains(mutant) for entry in excuses)
    ]
    for entry in wrong:
        say(
            f"{FILE.name} excuses what the tests do notice: {target}: {entry.before} → {entry.after}"
        )
    for mutant in unexplained:
        say(f"unexplained: {mutant}")
    killed, timed_out = len(mutants) - len(survivors), verdicts[Verdict.TIMED_OUT]
    say(f"{target}: {len(mutants)} made, {killed} killed ({timed_out} by the time limit),")
    say(f"    {len(survivors)} survived, {len(unexplained)} of them unexplained")
    return not unexplained and not wrong


def _is_sound(rooms: Sequence[Laboratory], target: str) -> bool:
    """Tell whether a verdict means anything: the tests pass as things are, and they do see the copy's file."""
    for room in rooms:
        if (ended := room.run(TARGETS[target])).verdict is not Verdict.SURVIVED:
            say(f"{target}: its tests fail without a mutant\n{ended.said}")
            return False
    nonsense = Mutant(target, 1, "", "", "this is neither")
    if rooms[0].try_out(nonsense, TARGETS[target]).verdict is not Verdict.KILLED:
        say(f"{target}: its tests pass whatever stands in it")
        return False
    return True


def _trials(
    rooms: Sequence[Laboratory], target: str, mutants: Sequence[Mutant]
) -> Generator[tuple[Mutant, Ended], None, None]:
    """Yield how each mutant's trial ended, in order, as soon as it is known."""
    free: SimpleQueue[Laboratory] = SimpleQueue()
    for room in rooms:
        free.put(room)

    def try_out(mutant: Mutant) -> Ended:
        room = free.get()
        try:
            return room.try_out(mutant, TARGETS[target])
        finally:
            free.put(room)

    pool = ThreadPoolExecutor(len(rooms))
    try:
        yield from zip(mutants, pool.map(try_out, mutants), strict=True)
    finally:  # interrupted: no more are begun, and the copies must not go while a trial is under way
        pool.shutdown(cancel_futures=True)


def say(text: str) -> None:
    """Print at once: this takes minutes."""
    print(text, flush=True)  # noqa: T201 - a program's output


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
