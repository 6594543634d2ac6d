"""``tally`` and ``python -m worker``: the process around a command, from start to end."""

import gc
import os
import signal
import sys
from types import FrameType
from typing import Final, NoReturn

DEFAULT_HANDLERS: Final = {
    signal.SIGINT: signal.default_int_handler,
    signal.SIGTERM: signal.SIG_DFL,
}


def main() -> NoReturn:
    """Run a command; until it handles signals itself, they end the process in silence.

    Python alone would raise KeyboardInterrupt inside an import.
    And the first process of a container ignores a SIGTERM that has no handler.
    """
    signals = _handle_signals(is_worker=sys.argv[1:2] == ["run"])
    # Modules stay in memory:
    # to search them for garbage takes a fifth of the start.
    gc.disable()
    if sys.argv[1:2] == ["healthcheck"]:
        _check_health_quickly()
    from worker.cli.main import main as run_command  # noqa: PLC0415 - signals are handled by now

    try:
        run_command()
    finally:
        # The exit code is decided: a late signal must not change it.
        for number in signals:
            signal.signal(number, signal.SIG_IGN)


def _check_health_quickly() -> None:
    """End the process with the result of a plain health check."""
    from worker.cli.quick_healthcheck import run_quickly  # noqa: PLC0415 - only a check needs it

    code = run_quickly(sys.argv[1:])
    if code is not None:
        sys.exit(code)


def _handle_signals(*, is_worker: bool) -> list[signal.Signals]:
    """Handle the signals that have Python's own handler: others are ignored on purpose.

    A worker that is stopped before it reads anything has done all that it could.
    """
    handled = [
        number
        for number, handler in DEFAULT_HANDLERS.items()
        if signal.getsignal(number) is handler
    ]
    for number in handled:
        signal.signal(number, _succeed if is_worker else _end)
    if is_worker:
        # It waits until the worker handles it:
        # ``EarlySignals`` in ``service/lifecycle.py``.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    return handled


def _end(number: int, _frame: FrameType | None) -> None:
    """End with 130 after an interrupt, and with 143 after a stop."""
    os._exit(128 + number)


def _succeed(_number: int, _frame: FrameType | None) -> None:
    os._exit(0)


if __name__ == "__main__":
    main()
