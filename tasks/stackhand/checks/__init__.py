"""The framework of checks and fixes: what a check, a fix and a kind are, and the runner."""
