"""Which stage belongs to which row: each brings about one situation."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final, cast

from tests.worlds import World

Begin = Callable[[World], AbstractAsyncContextManager[None]]
FOLDER: Final = "{folder}"


@dataclass(frozen=True, slots=True)
class Stage:
    """What brings a situation about while it is open."""

    begin: Begin
    while_running: bool
    """Whether a healthy worker runs before."""


STAGES: Final[dict[str, Stage]] = {}
"""Situation, as its row has it → stage."""


def stage(
    situation: str, *, while_running: bool = False
) -> Callable[[Callable[[World], AsyncIterator[None]]], Begin]:
    """Register a generator as the stage of a row: before its ``yield`` it sets the stage."""

    def register(generate: Callable[[World], AsyncIterator[None]]) -> Begin:
        begin = asynccontextmanager(generate)
        assert situation not in STAGES, situation
        STAGES[situation] = Stage(begin, while_running)
        return begin

    return register


def settings(situation: str, **values: str | None) -> None:
    """Register settings alone; ``{folder}`` in a value is the folder of the world."""

    @stage(situation)
    async def change(world: World) -> AsyncIterator[None]:
        set_all(world, values)
        yield


def set_all(world: World, values: dict[str, str | None]) -> None:
    """Change settings of the world; one of None is left unset."""
    for name, value in values.items():
        world.settings.pop(name, None)
        if value is not None:
            world.settings[name] = value.replace(FOLDER, str(world.folder))


def redis_of(world: World) -> Any:
    """Return the administrator's client. redis-py types its commands for both its clients."""
    return cast("Any", world.redis)
