"""Only here PubNub is known: the client (the SDK's traps, once), the wire, the live subscription, history."""
