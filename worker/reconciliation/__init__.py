"""What must be true: comparing the tallies with PubNub's list, and repairing them."""
