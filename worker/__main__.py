"""``tally``, and ``python -m worker``: the process around a command, from its first moment to its last."""

import gc
import os
import signal
from typing import NoReturn


def main() -> NoReturn:
    """Run a command; an interrupt or a stop ends the process with 130 or 143, wherever it is, in silence.

    Python would raise KeyboardInterrupt somewhere in an import, as a traceback or where nobody hears of it.
    The first process of a container does not hear SIGTERM at all, unless it has a handler.
    """
    usual = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
    heard = [
        number for number, handler in usual.items() if signal.getsignal(number) is handler
    ]  # else wanted deaf
    for number in heard:
        signal.signal(number, lambda number, _frame: os._exit(128 + number))
    gc.disable()  # what is imported stays: to look through it for garbage, again and again, is a fifth of every start
    from worker.cli.commands import main as run_command  # noqa: PLC0415 - a signal is heard by now

    try:
        run_command()
    finally:
        for number in heard:
            signal.signal(number, signal.SIG_IGN)  # it has ended, and its exit code tells how


if __name__ == "__main__":
    main()
