"""What stackhand keeps between runs: the lock, documents, and what only its owner may write."""
