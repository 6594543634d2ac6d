"""Runs the command behind it with small pieces, so that a look at a short list is saved, too.

python small_pieces.py python -m worker run
"""

import runpy
import sys

from worker.store import entries

entries.PIECE_MESSAGES = 2  # type: ignore[misc]

sys.argv = sys.argv[3:]
runpy.run_module("worker", run_name="__main__", alter_sys=True)
