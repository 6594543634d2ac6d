"""What the worker serves over HTTP, and to whom."""
