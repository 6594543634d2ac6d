"""A PubNub for one laptop: subscribe, message actions, channel groups and time.

It has seeded faults, and it knows the true counts. It shares no code with
the worker, so one misunderstanding of PubNub cannot hide in both.
"""

from worker.emulator.actions import Action, Identity
from worker.emulator.emulator import Emulator
from worker.emulator.faults import FAULT_NAMES
from worker.emulator.replies import RefusedError
from worker.emulator.state import State
from worker.emulator.storage import Page, Truth, Window
from worker.emulator.stream import Cursor
from worker.emulator.subscription import Subscription
from worker.emulator.tokens import DELETE, MANAGE, READ, WRITE, Grant
from worker.emulator.trouble import OUTAGE_KINDS

__all__ = [
    "DELETE",
    "FAULT_NAMES",
    "MANAGE",
    "OUTAGE_KINDS",
    "READ",
    "WRITE",
    "Action",
    "Cursor",
    "Emulator",
    "Grant",
    "Identity",
    "Page",
    "RefusedError",
    "State",
    "Subscription",
    "Truth",
    "Window",
]
