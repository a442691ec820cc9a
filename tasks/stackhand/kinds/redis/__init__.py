"""Redis, and what speaks its protocol: logins, users, memory, saving to disk."""
