"""The answers of a pipeline. An error may be one of them."""

from collections.abc import Iterable
from typing import Any


def is_error(answer: object) -> bool:
    """Tell whether an answer is an error."""
    return isinstance(answer, Exception)


def first_error(answers: Iterable[Any]) -> Exception | None:
    """Return the first answer that is an error; None if there is none."""
    errors = filter(is_error, answers)
    return next(errors, None)


def raise_error(answers: Iterable[Any]) -> None:
    """Raise the first answer that is an error."""
    error = first_error(answers)
    if error:
        raise error
