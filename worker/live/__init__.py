"""What happens now: subscriptions, their cursors, and the gaps in what they bring."""
