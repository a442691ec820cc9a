"""Redis' users, as ACL files, configurations and `ACL LIST` write them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

# The user of a login without a name.
DEFAULT = "default"


@dataclass(frozen=True)
class User:
    """One user of an ACL: the SHA-256 of its passwords, and its rules as they stand there ("" for `requirepass`)."""

    name: str
    enabled: bool = True
    hashes: frozenset[str] = frozenset()
    rules: str = field(default="", repr=False)

    def takes(self, digest: str) -> bool:
        """Return whether the password of this hash is one of the user's. A user that takes any is not meant."""
        return self.enabled and digest in self.hashes


def users_of(text: str) -> dict[str, User]:
    """Return the users of an ACL file, of a configuration, or of `ACL LIST`, by name.

    >>> users_of("user app on #0a ~* +@all\\nuser default off")["app"].rules
    'on #0a ~* +@all'
    """
    found: dict[str, User] = {}
    for line in text.splitlines():
        what, _, rest = line.strip().partition(" ")
        if what != "user" or not rest.strip():
            continue
        name, _, rules = rest.strip().partition(" ")
        enabled = False
        hashes: set[str] = set()
        for rule in rules.split():
            if rule in ("on", "off"):
                enabled = rule == "on"
            elif rule in ("nopass", "resetpass", "reset"):
                hashes.clear()
                enabled = enabled and rule != "reset"
            elif rule.startswith(">"):
                hashes.add(digest(rule[1:]))
            elif rule.startswith("#"):
                hashes.add(rule[1:].lower())
        found[name] = User(name, enabled, frozenset(hashes), rules.strip())
    return found


def digest(password: str) -> str:
    """Return a password's hash as ACLs have it; that of no password is ""."""
    return hashlib.sha256(password.encode()).hexdigest() if password else ""
