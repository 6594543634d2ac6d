"""What happens now: subscriptions, cursors, gaps."""
