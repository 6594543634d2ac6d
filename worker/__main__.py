"""``tally``, and ``python -m worker``: the process around a command, from its first moment to its last."""

import gc
import os
import signal
from typing import NoReturn


def main() -> NoReturn:
    """Run a command; an interrupt ends the process with 130, wherever it is, in silence.

    Python would raise KeyboardInterrupt, somewhere in an import: as a traceback, or where nobody hears of it.
    """
    is_heard = signal.getsignal(signal.SIGINT) is signal.default_int_handler  # else whoever started it wants it deaf
    if is_heard:
        signal.signal(signal.SIGINT, lambda number, _frame: os._exit(128 + number))
    gc.disable()  # what is imported stays: to look through it for garbage, again and again, is a fifth of every start
    from worker.cli import main as run_command  # noqa: PLC0415 - an interrupt is heard by now

    try:
        run_command()
    finally:
        if is_heard:
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # it has ended, and its exit code tells how


if __name__ == "__main__":
    main()
