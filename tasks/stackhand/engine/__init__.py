"""The only code that talks to Docker, to Compose or to any other program. It never prints."""
