"""``tally`` and ``python -m worker``: the process around a command, from start to end."""

import gc
import os
import signal
from types import FrameType
from typing import NoReturn


def main() -> NoReturn:
    """Run a command; until it handles signals itself, they end the process in silence.

    The exit code is 130 after an interrupt and 143 after a stop. Python alone would raise
    KeyboardInterrupt inside an import. And the first process of a container ignores a SIGTERM
    that has no handler.
    """
    signals = _unhandled_signals()
    for number in signals:
        signal.signal(number, _end)

    # Modules stay in memory: to search them for garbage takes a fifth of the start.
    gc.disable()
    from worker.cli.main import main as run_command  # noqa: PLC0415 - signals are handled by now

    try:
        run_command()
    finally:
        # The exit code is decided: a late signal must not change it.
        for number in signals:
            signal.signal(number, signal.SIG_IGN)


def _unhandled_signals() -> list[signal.Signals]:
    """Return the signals that have Python's own handler: others are ignored on purpose."""
    defaults = {
        signal.SIGINT: signal.default_int_handler,
        signal.SIGTERM: signal.SIG_DFL,
    }
    return [number for number, handler in defaults.items() if signal.getsignal(number) is handler]


def _end(number: int, _frame: FrameType | None) -> None:
    os._exit(128 + number)


if __name__ == "__main__":
    main()
