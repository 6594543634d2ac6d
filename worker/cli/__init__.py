"""The command line: the only place that prints. ``commands.py`` declares every command."""
