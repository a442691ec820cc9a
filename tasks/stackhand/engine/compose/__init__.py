"""The Compose command line, and the project that it describes."""
