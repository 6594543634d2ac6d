"""PubNub, read here and nowhere else: live answers, pages of history, the SDK's traps."""
