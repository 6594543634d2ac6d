"""What the tallies say: of one message, of the busiest ones, of channels, and as they change."""
