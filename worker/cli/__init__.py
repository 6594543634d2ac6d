"""What a person at a terminal meets: commands in, sentences and exit codes out."""
