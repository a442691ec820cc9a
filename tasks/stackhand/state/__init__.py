"""What stackhand keeps between runs: the lock, JSON documents, the journal of actions, and a private folder."""
