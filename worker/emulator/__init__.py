"""A PubNub for one laptop: subscribe, message actions, channel groups and time, with seeded faults and the truth.

It shares no code with the rest of the worker, so that a misunderstanding of PubNub cannot hide in both.
"""

from worker.emulator.actions import Action, Identity
from worker.emulator.emulator import Emulator
from worker.emulator.faults import FAULT_NAMES, Fault, Faults
from worker.emulator.history import Page, Window
from worker.emulator.replies import RefusedError
from worker.emulator.state import Change, Limits, State, Truth
from worker.emulator.stream import Answer, Cursor
from worker.emulator.subscription import Subscription
from worker.emulator.trouble import OUTAGE_KINDS

__all__ = [
    "FAULT_NAMES",
    "OUTAGE_KINDS",
    "Action",
    "Answer",
    "Change",
    "Cursor",
    "Emulator",
    "Fault",
    "Faults",
    "Identity",
    "Limits",
    "Page",
    "RefusedError",
    "State",
    "Subscription",
    "Truth",
    "Window",
]
