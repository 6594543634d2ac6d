"""PubNub, read here and nowhere else.

Live answers, pages of history, the SDK's traps.
"""
