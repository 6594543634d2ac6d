"""Lua scripts, kept as files: one verb, one script."""

from importlib.resources import files


def source(verb: str) -> str:
    """Return the text of ``lua/<verb>.lua``."""
    return files(__package__).joinpath("lua", f"{verb}.lua").read_text(encoding="utf-8")
