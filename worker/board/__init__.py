"""The board: what the tallies do, as a page that one sees."""
