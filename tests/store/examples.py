"""How many examples hypothesis sends to a real server."""

from hypothesis import HealthCheck, settings

from tests.histories import steady

# Only a real server proves something. Each example empties it first.
ON_A_REAL_SERVER = settings(
    steady,
    max_examples=40,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
