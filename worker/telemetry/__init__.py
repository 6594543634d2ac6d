"""How the worker tells what it does."""
