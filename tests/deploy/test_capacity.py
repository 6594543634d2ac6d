"""The table of capacity is what the measured figures say."""

from tests.bench import beyond, capacity
from tests.deploy.dockerfile import ROOT

REFERENCE = (ROOT / "deploy/reference.md").read_text(encoding="utf-8")
BENCHMARKS = (ROOT / "tests/benchmarks/README.md").read_text(encoding="utf-8")


def test_the_table_is_derived() -> None:
    """`python -m tests.bench.capacity` prints it."""
    assert capacity.table() in REFERENCE


def test_the_tables_beyond_one_machine_are_derived() -> None:
    """`python -m tests.bench.beyond` prints them."""
    for table in beyond.tables():
        assert table in REFERENCE


def test_its_figures_are_documented() -> None:
    """Each stands where it was measured."""
    worker, redis = (
        round(seconds * 1e6) for seconds in (capacity.WORKER_SECONDS, capacity.REDIS_SECONDS)
    )
    assert f"500/s, {worker} + {redis} |" in BENCHMARKS
    assert f"{capacity.START_MB} MB, and {capacity.SUBSCRIPTION_MB} MB a subscription" in REFERENCE
    assert f"110 to {capacity.JOURNAL_BYTES} bytes for each event" in REFERENCE
    assert f"every 280 s: {capacity.IDLE_POLLS}\nrequests an hour" in REFERENCE
