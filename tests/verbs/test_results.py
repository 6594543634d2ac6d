"""What a command returns may be large: nothing represents it by accident."""

from worker.cli.interrupts import finish


class Large:
    """A result that must not be represented."""

    def __init__(self) -> None:
        self.represented = 0

    def __repr__(self) -> str:
        self.represented += 1
        return "Large()"


async def returned(large: Large) -> Large:
    """Return it, as a command's work does."""
    return large


def test_a_result_is_never_represented() -> None:
    """`asyncio.run` alone would, up to Python 3.12, when it gives its signal handler back."""
    large = Large()

    assert finish(returned(large)) is large
    assert large.represented == 0
