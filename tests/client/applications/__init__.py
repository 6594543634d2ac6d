"""Small real applications, as teams write them: each has a reader at the top of a module."""
