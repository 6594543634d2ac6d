"""The client that other programs install: ``reaction_tally``."""
