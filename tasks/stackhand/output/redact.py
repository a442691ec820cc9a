"""Masks the secrets in all that is shown or written.

A value is secret if it comes from a Compose secret or a secret file, from an environment variable with a telling name,
or from what gives a password away, such as `password=` or the userinfo of a URL: `secret_values`.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from stackhand.errors import StackError
from stackhand.output.secret_values import (
    MIN_LENGTH,
    forms,
    is_common,
    is_public_name,
    is_secret_name,
    looks_like_word,
    passwords,
    secrets_of,
)

MASK = "***"

# Roles that servers have by themselves, and words that are about secrets. Everybody would guess these first; to mask
# them protects nothing.
_PUBLIC = ("root", "postgres", "admin", "default", "guest", "user", "password", "secret", "token")
_LONGEST_ROLE = 20
# A word after one of these is a secret, also where it is somebody's name, too.
_TELLING = re.compile(r"(?i)(passw(or)?d|passphrase|secret|token|pwd)\W{1,3}((is|was)\W{1,3})?$")
_URL_USER = re.compile(r"://([\w.-]{1,20})(?=[:@])")


def mask_part(text: str, part: str, mask: Callable[[str], str]) -> str:
    """Return `text`, of our own words, with the secrets masked in the part of it that came from elsewhere."""
    return text.replace(part, mask(part)) if part else text


def message_of(error: StackError, mask: Callable[[str], str]) -> str:
    """Return an error's message with the secrets masked in what it, or an error that caused it, has from elsewhere."""
    message = error.message
    cause: BaseException | None = error
    while isinstance(cause, StackError):
        message, cause = mask_part(message, cause.foreign, mask), cause.__cause__
    return message


class Redactor:
    """Knows the secret values of one run, and masks them.

    `text` is for text from elsewhere, where it comes in: logs, probe output, other programs' messages. It masks every
    secret; one that looks like a word only as a word of its own.

    `own_text` is for text that stackhand composes, where it goes out: of its own words, of names, and of parts that
    went through `text`. It masks only what can't be a word, in case something came in by no door.

    Neither masks within a public name: of a service, a volume, a role.
    """

    def __init__(self) -> None:
        self._secrets: set[str] = set()
        self._public: set[str] = set(_PUBLIC)
        self._index: _Index | None = None
        self._lock = threading.Lock()

    def add(self, values: Iterable[str]) -> None:
        """Learn secret values: as they are, each line of them, and as they look when encoded."""
        found = {form for value in values if value for form in forms(value)}
        with self._lock:
            self._secrets.update(each for each in found if len(each.strip()) >= MIN_LENGTH and not is_common(each))
            self._index = None

    def add_environment(self, environment: Mapping[str, str | None]) -> None:
        """Learn the secrets among a container's environment variables, and the names of roles, databases and hosts."""
        given = {name: value for name, value in environment.items() if value}
        self.add(secret for name, value in given.items() for secret in secrets_of(name, value))
        roles = [value for name, value in given.items() if is_public_name(name) and not is_secret_name(name)]
        self.add_public(role for role in roles if len(role) <= _LONGEST_ROLE or looks_like_word(role))
        users = (user for value in given.values() for user in _URL_USER.findall(value))
        self.add_public(user for user in users if looks_like_word(user))

    def add_public(self, names: Iterable[str]) -> None:
        """Learn names that are not masked, nor anything within them, even if a secret has the same value."""
        with self._lock:
            self._public.update(filter(None, names))
            self._index = None

    def text(self, text: str) -> str:
        """Return `text` from elsewhere with every secret masked."""
        return _masked(text, (*passwords(text), *self._known().find(text, words=True)))

    def own_text(self, text: str) -> str:
        """Return `text` of our own with those secrets masked that can't be a word."""
        return _masked(text, (*passwords(text, only_in_urls=True), *self._known().find(text, words=False)))

    def lines(self, lines: Iterable[str]) -> list[str]:
        """Return lines from elsewhere with every secret masked, also one that goes over several lines."""
        return self.text("\n".join(lines)).split("\n") if lines else []

    def document(self, value: Any) -> Any:
        """Return a JSON-like value with all its strings as `own_text` returns them."""
        if isinstance(value, str):
            return self.own_text(value)
        if isinstance(value, Mapping):
            return {key: self.document(item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.document(item) for item in value]
        return value

    def _known(self) -> _Index:
        with self._lock:
            if self._index is None:
                self._index = _Index(self._secrets, self._public)
            return self._index


class _Index:
    """Secrets by their first letters, so that finding them in a text takes as long for a thousand as for one."""

    def __init__(self, secrets: Iterable[str], public: Iterable[str]) -> None:
        self._heads: dict[str, list[str]] = {}
        # Longest first, so that a secret that contains another one is masked as a whole.
        for secret in sorted(secrets, key=len, reverse=True):
            self._heads.setdefault(secret[:MIN_LENGTH], []).append(secret)
        self._words = {secret for secret in secrets if looks_like_word(secret.strip())}
        self._public = tuple(public)
        self._around: dict[str, list[tuple[str, int]]] = {}

    def find(self, text: str, *, words: bool) -> Iterator[tuple[int, int]]:
        """Yield where secrets stand in a text; with `words`, those that look like a word, too."""
        heads, end = self._heads, 0
        if not heads:
            return
        for start in [at for at in range(len(text) - MIN_LENGTH + 1) if text[at : at + MIN_LENGTH] in heads]:
            if start < end:
                continue
            for secret in heads[text[start : start + MIN_LENGTH]]:
                is_word = secret in self._words
                if is_word and not words:
                    continue
                stop = start + len(secret)
                if not text.startswith(secret, start):
                    if not _is_cut(text, start, secret):
                        continue
                    stop = len(text)
                if is_word and not _stands_alone(text, start, stop):
                    continue
                if self._is_public(text, start, secret) and not (words and _is_told(text, start)):
                    continue
                yield start, stop
                end = stop
                break

    def _is_public(self, text: str, start: int, secret: str) -> bool:
        """Return whether what stands at `start` belongs to a public name."""
        around = self._around.get(secret)
        if around is None:
            names = [name for name in self._public if secret in name]
            around = [(name, at) for name in names for at in range(len(name)) if name.startswith(secret, at)]
            self._around[secret] = around
        return any(
            text.startswith(name, start - before) and _stands_alone(text, start - before, start - before + len(name))
            for name, before in around
            if before <= start
        )


def _is_cut(text: str, start: int, secret: str) -> bool:
    """Return whether the text ends within the secret: the engine cuts long output wherever it is."""
    left = text[start:]
    return len(left) >= 8 and secret.startswith(left) and not looks_like_word(left)


def _stands_alone(text: str, start: int, end: int) -> bool:
    before, after = text[start - 1 : start], text[end : end + 1]
    return not (before.isalnum() or before == "_" or after.isalnum() or after == "_")


def _is_told(text: str, start: int) -> bool:
    return bool(_TELLING.search(text, max(0, start - 24), start))


def _masked(text: str, spans: Iterable[tuple[int, int]]) -> str:
    """Return `text` with these parts masked; those that touch become one."""
    parts: list[str] = []
    end = 0
    for start, stop in sorted(spans):
        if start > end or not parts:
            parts += [text[end:start], MASK]
        end = max(end, stop)
    return "".join((*parts, text[end:])) if parts else text
