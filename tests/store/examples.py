"""What tests of the script share."""

from collections.abc import Sequence
from typing import Any, cast

import pytest
from hypothesis import HealthCheck, settings
from redis.asyncio import Redis

from tests.histories import CHANNEL, steady
from worker.domain.action import Event, Origin
from worker.domain.entry import Outcome
from worker.store.store import OUTCOMES, Applied, Store

# Only a real server proves something. Each example empties it first.
ON_A_REAL_SERVER = settings(
    steady,
    max_examples=40,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def outcomes_of(applied: Applied, events: Sequence[Event]) -> list[Outcome]:
    """Return the outcome of each event, in the order of the events.

    The script answers by message, tally and action, each in the order of its first event.
    """
    messages: dict[str, dict[tuple[str, str], dict[str, list[int]]]] = {}
    for number, event in enumerate(events):
        identity = event.identity
        tallies = messages.setdefault(identity.message_timetoken, {})
        actions = tallies.setdefault((identity.type, identity.value), {})
        actions.setdefault(identity.uuid, []).append(number)
    groups = [actions for tallies in messages.values() for actions in tallies.values()]
    order = [number for actions in groups for numbers in actions.values() for number in numbers]
    outcomes = [OUTCOMES[letter] for letter in applied.letters]
    return [outcome for _, outcome in sorted(zip(order, outcomes, strict=True))]


async def apply(
    store: Store, events: Sequence[Event], *, channel: str = CHANNEL, origin: Origin = Origin.LIVE
) -> Applied:
    """Apply events of one channel in one script call.

    Raises:
        ScriptRefusedError: the channel is refused.
    """
    (result,), _ = await store.apply_all([(channel, events)], origin)
    if isinstance(result, Applied):
        return result
    raise result


def counted_calls(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """Return the calls of scripts, which grow with each one."""
    calls: list[tuple[Any, ...]] = []
    call = cast("Any", redis).evalsha

    async def counted(*args: Any) -> Any:
        calls.append(args)
        return await call(*args)

    monkeypatch.setattr(redis, "evalsha", counted)
    return calls
