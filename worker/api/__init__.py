"""The HTTP API for programs that cannot reach Redis: what they read, and what changes."""
