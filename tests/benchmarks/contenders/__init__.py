"""The contenders of the shapes, each a process of its own; ``race.py`` starts them."""
