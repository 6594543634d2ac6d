"""How the worker reports on itself: log, metrics, health."""
