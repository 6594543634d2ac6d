"""Failed reads, as problems. The reason is for the log: it names the server."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import structlog
from aiohttp import hdrs

from reaction_tally.errors import NotTheseTalliesError, TallyReadError
from worker.telemetry.throttled_warning import ThrottledWarning
from worker.web.problems import ProblemError

RETRY_SECONDS: Final = "2"
NOT_THESE: Final = (
    "Redis holds no tallies that this version can read. The worker's log says why, and what to do."
)
AWAY: Final = "Redis does not answer just now."


class ReadFailures:
    """Turns errors of the reader into problems, and logs them, once a minute at most."""

    def __init__(self) -> None:
        log = structlog.get_logger(__name__)
        self._warning = ThrottledWarning(log, "api_cannot_read", "api_reads", time.monotonic)

    @contextmanager
    def translated(self) -> Iterator[None]:
        """Translate an error of the reader.

        Raises:
            ProblemError: 503.
        """
        try:
            yield
        except TimeoutError:
            raise _problem(AWAY) from None
        except TallyReadError as error:
            self.note(error)
            detail = NOT_THESE if isinstance(error, NotTheseTalliesError) else AWAY
            raise _problem(detail) from None
        self._warning.recovered()

    def note(self, error: TallyReadError) -> None:
        """Log a failure."""
        self._warning.failing(reason=str(error))


def _problem(detail: str) -> ProblemError:
    return ProblemError(503, detail, headers={hdrs.RETRY_AFTER: RETRY_SECONDS})
