"""Keeps exact reaction counts of PubNub message actions in Redis.

Other programs import ``reaction_tally``, the client. Nothing here is for them.
"""

__version__ = "0.3.0"
