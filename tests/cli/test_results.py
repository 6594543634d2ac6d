"""The result of a command may be large, so nothing builds its repr."""

from worker.cli.interrupts import finish


class Large:
    """A result that counts how often its repr is built."""

    def __init__(self) -> None:
        self.built = 0

    def __repr__(self) -> str:
        self.built += 1
        return "Large()"


async def returned(large: Large) -> Large:
    """Return it, as the work of a command does."""
    return large


def test_no_repr_of_a_result_is_built() -> None:
    """Up to Python 3.12 ``asyncio.run`` alone builds one, when it restores its handler."""
    large = Large()

    assert finish(returned(large)) is large
    assert large.built == 0
