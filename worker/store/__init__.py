"""Only here Redis is known."""
