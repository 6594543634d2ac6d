"""Every metric, in one file."""

from typing import Final

from prometheus_client import Counter

gaps: Final = Counter("tally_gaps", "Stretches of events that may have been missed, by cause.", ["cause"])
repaid: Final = Counter("tally_gaps_repaid", "Marks of such gaps that a reconcile took back, by cause.", ["cause"])
inferred: Final = Counter("tally_inferred", "Events a reconcile inferred from PubNub's list, by kind.", ["event"])
differences: Final = Counter("tally_differences", "Tallies that verify found to differ from PubNub's list.")
