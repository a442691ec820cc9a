"""Masks the values of secrets in all that is shown or written.

A value is secret if it comes from a Compose secret or a secret file, from an environment variable with a telling name
(`is_secret_name`), or is the password in a URL.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterable, Mapping
from typing import Any

MASK = "***"

_SECRET_NAME = re.compile(
    r"passw(or)?d|passphrase|secret|token|credential|(^|_)(pass|pwd|pw|salt)(_|$)|(^|_)auth$|api_?key|(^|_)key(_|$)|private_?key",
    re.IGNORECASE,
)
# Variables such as POSTGRES_PASSWORD_FILE or SECRET_PATH name the place of a secret, which is not secret itself.
_NAMES_A_PLACE = re.compile(r"_(file|path|dir|name|id|url_prefix)$", re.IGNORECASE)
# The shell's variables for its current and its last folder.
_FOLDERS = frozenset({"PWD", "OLDPWD"})
# The password ends at the last @ of the authority, as in urllib. A password that was not escaped may contain a slash,
# which ends the authority; then only a port, which is all digits, is not a password.
_URL_PASSWORD = re.compile(
    r"(?P<before>[a-zA-Z][\w+.-]*://[^\s/:@]*:)"
    r"(?P<password>[^\s/\"']+(?=@[^@\s/]*)|(?!\d+/)[^\s@\"']+(?=@))"
)
# Shorter values and these words occur everywhere. Masking them would garble text and protect nothing.
_MIN_LENGTH = 4
_COMMON = {
    "true",
    "false",
    "none",
    "null",
    "yes",
    "auto",
    "disable",
    "disabled",
    "enabled",
    "require",
    "prefer",
}


def is_secret_name(name: str) -> bool:
    """Return whether an environment variable of this name holds a secret.

    >>> [is_secret_name(n) for n in ("POSTGRES_PASSWORD", "DB_PASSWORD_FILE", "AWS_ACCESS_KEY", "KEYBOARD", "PWD")]
    [True, False, True, False, False]
    """
    return bool(_SECRET_NAME.search(name)) and not _NAMES_A_PLACE.search(name) and name not in _FOLDERS


def mask_urls(text: str) -> str:
    """Mask the password in every URL of `text`."""
    return _URL_PASSWORD.sub(lambda found: found["before"] + MASK, text)


class Redactor:
    """Knows the secret values of one run, and masks them.

    `text` masks all of them. It is for text from elsewhere: logs, probe output, other programs' messages.
    `own_text` spares values that are public names, too, such as the password `postgres` of a service `postgres`. It is
    for text and JSON that stackhand itself composes, of names and of parts that already went through `text`.
    """

    def __init__(self) -> None:
        self._secrets: set[str] = set()
        self._public: set[str] = set()
        self._patterns: dict[bool, re.Pattern[str] | None] = {}
        self._lock = threading.Lock()

    def add(self, values: Iterable[str]) -> None:
        """Learn secret values: as they are, each line of them, and quoted for a URL."""
        with self._lock:
            self._learn(values)

    def _learn(self, values: Iterable[str]) -> None:
        from urllib.parse import quote

        for value in values:
            for part in (value, value.strip(), quote(value, safe=""), *value.splitlines()):
                if len(part.strip()) >= _MIN_LENGTH and part.strip().lower() not in _COMMON:
                    self._secrets.add(part)
        self._patterns.clear()

    def add_environment(self, environment: Mapping[str, str | None]) -> None:
        """Learn the secrets among a container's environment variables, including passwords in URLs."""
        from urllib.parse import unquote

        for name, value in environment.items():
            if not value:
                continue
            if is_secret_name(name):
                self.add([value])
            for found in _URL_PASSWORD.finditer(value):
                self.add([found["password"], unquote(found["password"])])

    def add_public(self, names: Iterable[str]) -> None:
        """Learn names that `own_text` must not mask, even if a secret has the same value."""
        with self._lock:
            self._public.update(names)
            self._patterns.clear()

    def text(self, text: str) -> str:
        """Return `text` with every secret masked."""
        return self._mask(text, spare_public=False)

    def own_text(self, text: str) -> str:
        """Return `text` with every secret masked that is not a public name, too."""
        return self._mask(text, spare_public=True)

    def document(self, value: Any) -> Any:
        """Return a JSON-like value with the secrets in all its strings masked."""
        if isinstance(value, str):
            return self.own_text(value)
        if isinstance(value, Mapping):
            return {key: self.document(item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.document(item) for item in value]
        return value

    def _mask(self, text: str, *, spare_public: bool) -> str:
        pattern = self._pattern(spare_public)
        return mask_urls(pattern.sub(MASK, text) if pattern else text)

    def _pattern(self, spare_public: bool) -> re.Pattern[str] | None:
        with self._lock:
            if spare_public not in self._patterns:
                values = self._secrets - self._public if spare_public else self._secrets
                # Longest first, so that a secret that contains another one is masked as a whole.
                ordered = sorted(values, key=len, reverse=True)
                self._patterns[spare_public] = re.compile("|".join(map(re.escape, ordered))) if ordered else None
            return self._patterns[spare_public]
