"""PubNub, read here and nowhere else."""
