"""The development restart: rebuild and restart what changed, and nothing else."""
