"""Histories for tests: short ones by hand, long ones by hypothesis."""

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from worker.domain.action import Added, Event, Identity, Observed, Pruned, Removed, Restored

steady = settings(deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
"""Hypothesis without luck: the same examples each time, and no deadline for one of them."""

CHANNEL = "room"
MESSAGE = "17600000001728660"

ANA = Identity(CHANNEL, MESSAGE, "reaction", "👍", "ana")
BEN = Identity(CHANNEL, MESSAGE, "reaction", "👍", "ben")


def at(place: int) -> str:
    """Return the timetoken of a place in a short history; 0 has fewer digits than 1 and up."""
    return str(9_999_999_999_999_998 + 2 * place)


def added(place: int, identity: Identity = ANA) -> Added:
    """Return an addition at that place, told at once."""
    return Added(identity, at(place), at(place))


def removed(place: int, identity: Identity = ANA) -> Removed:
    """Return the removal of the action added at that place, told a little later."""
    return Removed(identity, at(place), at(place + 1))


def pruned(place: int, identity: Identity = ANA) -> Pruned:
    """Return the inference that the action added at that place is gone."""
    return Pruned(identity, at(place))


def restored(place: int, through: int, identity: Identity = ANA) -> Restored:
    """Return the inference that the action exists although removals are known up to ``through``."""
    return Restored(identity, at(place), at(through))


# Few identities and places, so that events meet; texts that a field's encoding must survive.
identities = st.builds(
    Identity,
    st.just(CHANNEL),
    st.sampled_from([MESSAGE, "1234567890"]),
    st.sampled_from(["reaction", "re:act%ion"]),
    st.sampled_from(["👍", "a:b%3A{c}\n", ""]),
    st.sampled_from(["ana", "u:1"]),
)
places = st.integers(0, 4)
observed: st.SearchStrategy[Observed] = st.one_of(
    st.builds(added, places, identities), st.builds(removed, places, identities)
)
events: st.SearchStrategy[Event] = st.one_of(
    observed,
    observed,
    st.builds(pruned, places, identities),
    st.builds(restored, places, places, identities),
)
