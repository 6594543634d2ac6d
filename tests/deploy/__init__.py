"""What is deployed: its files say what the program does, and nothing it does not."""
