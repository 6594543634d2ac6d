"""The only writers of tallies: events, rollbacks, expiry."""
