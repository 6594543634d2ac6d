"""``python -m worker`` is ``tally``."""

from worker.cli import main

main()
