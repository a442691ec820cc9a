"""Which owner and mode a file should have."""
