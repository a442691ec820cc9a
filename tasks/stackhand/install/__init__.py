"""The tasks `engine.check` and `engine.install`: finds what is missing, and installs it."""
