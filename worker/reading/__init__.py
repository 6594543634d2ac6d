"""What the tallies say: of one message, and how they came to be."""
