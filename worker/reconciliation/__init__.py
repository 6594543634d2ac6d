"""What must be true: comparisons with PubNub's list, and repairs."""
