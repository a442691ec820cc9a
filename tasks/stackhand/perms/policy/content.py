"""Tells scripts, programs and private keys by the first bytes and the name of a file, and so the mode that it needs."""

from __future__ import annotations

import re

# How many bytes of a file are read: HEAD, or BUNDLE if it begins as a bundle of keys and certificates does.
HEAD = 4096
BUNDLE = 65536
_KEY = re.compile(
    rb"^(-----BEGIN [A-Z0-9 ]*PRIVATE KEY( BLOCK)?-----|PuTTY-User-Key-File-|AGE-SECRET-KEY-)", re.MULTILINE
)
# How a file begins, after blank lines and comments, that holds a private key there or further on.
_KEY_START = re.compile(
    rb"(\xef\xbb\xbf)?([ \t\r]*(#[^\n]*)?\n)*[ \t]*"
    rb"(-----BEGIN |Bag Attributes|PuTTY-User-Key-File-|AGE-SECRET-KEY-)"
)
# Files that their programs ignore, or refuse, if others can read them: libpq
# (https://www.postgresql.org/docs/current/libpq-pgpass.html), mysql_config_editor, Erlang, msmtp and fetchmail.
_PRIVATE_NAMES = frozenset({".pgpass", "pgpass.conf", ".mylogin.cnf", ".erlang.cookie", ".msmtprc", ".fetchmailrc"})
# The first byte of every file that content tells anything about.
_TELLING = frozenset(b"#\x7f-ABP\xef \t\r\n")
# The mode of private keys, and all modes that content can call for.
PRIVATE = 0o600
MODES = (0o755, 0o644, PRIVATE)
# The shortest file whose content matters, in bytes: "#!" and a letter.
SHORTEST = 3


def may_hold_a_key(head: bytes) -> bool:
    """Return whether a file begins like those that hold a private key, there or further on."""
    return bool(head) and head[0] in _TELLING and _KEY_START.match(head) is not None


def mode_by_content(head: bytes, mode: int, name: str = "", *, script: bool = False) -> int:
    """Return the mode of a file in a plain zone from its first bytes and its name, if everybody may read it now.

    A private key gets 600, whatever its name, and so does a file that its program takes only if it is private. A script
    gets 755, whether its content tells or `script` says so, and a program that is executable keeps 755. All other files
    get 644. Which of these rights others really get is for `Rules.desired` to say: none that they lack now.

    >>> [oct(mode_by_content(h, 0o664)) for h in (b"#!/bin/sh", b"text", b"-----BEGIN PRIVATE KEY-----")]
    ['0o755', '0o644', '0o600']
    """
    if head and head[0] in _TELLING:
        if head.startswith(b"#!") or (head.startswith(b"\x7fELF") and mode & 0o111):
            return 0o755
        if may_hold_a_key(head) and _KEY.search(head):
            return PRIVATE
    if script:
        return 0o755
    return PRIVATE if name in _PRIVATE_NAMES else 0o644


def usual_mode(head: bytes | None, mode: int, name: str, *, script: bool) -> int:
    """Return what `mode_by_content` does, also for a file that can't be read, whose `head` is None.

    Such a file keeps its mode, unless group or others can write to it.

    >>> [oct(usual_mode(None, mode, "run", script=False)) for mode in (0o755, 0o777)]
    ['0o755', '0o644']
    """
    if head is None and not mode & 0o022:
        return 0o755 if mode & 0o100 else 0o644
    return mode_by_content(head or b"", mode, name, script=script)
