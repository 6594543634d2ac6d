"""The pure part: what PubNub's events mean for a tally. No clock, no loop, no I/O."""
