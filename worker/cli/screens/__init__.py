"""What the reading commands print: for people at a terminal, as plain lines, and as JSON."""
