"""The tasks `engine.check` and `engine.install`: what is missing, and installing it."""
