"""A golden copy of what each release wrote to Redis, and what tests need to use it."""
