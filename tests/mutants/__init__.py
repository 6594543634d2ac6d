"""Would a test notice? ``python -m tests.mutants`` changes the rule a little at a time."""
