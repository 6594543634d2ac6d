"""Small real applications, which read tallies with a reader at the top of their module."""
