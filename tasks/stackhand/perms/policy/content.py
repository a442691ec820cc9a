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
# A private key or a PKCS #12 bundle in DER: a sequence that begins with a version number, as a certificate does not
# (https://www.rfc-editor.org/rfc/rfc5208#section-5, https://www.rfc-editor.org/rfc/rfc7292#section-4).
_DER = re.compile(rb"\x30(\x82..|\x81.|[\x08-\x7f])\x02\x01[\x00\x01\x03]", re.DOTALL)
# Names that mostly mean a private key, for formats that can't be told for sure by content.
_PRIVATE_SUFFIXES = (".p12", ".pfx", ".key", ".jks", ".keystore", ".kdbx", ".ppk")
_PRIVATE_NAMES = ("id_rsa", "id_dsa", "id_ecdsa", "id_ed25519", "id_xmss")
# The first byte of every file that content tells anything about.
_TELLING = frozenset(b"#\x7f-ABP\xef \t\r\n")
# The modes that files can have in a plain zone.
MODES = (0o755, 0o644, 0o600)
# The shortest file whose content matters, in bytes: "#!" and a letter.
SHORTEST = 3


def may_hold_a_key(head: bytes) -> bool:
    """Return whether a file begins like those that hold a private key, there or further on."""
    return bool(head) and head[0] in _TELLING and _KEY_START.match(head) is not None


def mode_by_content(head: bytes, mode: int, name: str = "", *, script: bool = False) -> int:
    """Return the mode of a file in a plain zone from its first bytes; if these do not tell, from its name.

    A private key gets 600, whatever its name. A script gets 755, whether its content tells or `script` says so, and a
    program that is executable keeps 755. A file that may be a private key, by its name or as DER, keeps 600 if it is
    closed to others now. All other files get 644.

    >>> [oct(mode_by_content(h, 0o664)) for h in (b"#!/bin/sh", b"text", b"-----BEGIN PRIVATE KEY-----")]
    ['0o755', '0o644', '0o600']
    >>> [oct(mode_by_content(b"\\0", mode, "tls.p12")) for mode in (0o400, 0o640)]
    ['0o600', '0o644']
    """
    if head and head[0] in _TELLING:
        if head.startswith(b"#!") or (head.startswith(b"\x7fELF") and mode & 0o111):
            return 0o755
        if may_hold_a_key(head) and _KEY.search(head):
            return 0o600
    if script:
        return 0o755
    return 0o600 if not mode & 0o077 and (_is_called_private(name) or _DER.match(head)) else 0o644


def usual_mode(head: bytes | None, mode: int, name: str, *, script: bool) -> int:
    """Return what `mode_by_content` does, also for a file that can't be read, whose `head` is None.

    If its mode is one that files can have in a plain zone, it stays.

    >>> [oct(usual_mode(None, mode, "run", script=False)) for mode in (0o755, 0o777)]
    ['0o755', '0o644']
    """
    if head is None and mode & 0o777 in MODES:
        return mode & 0o777
    return mode_by_content(head or b"", mode, name, script=script)


def _is_called_private(name: str) -> bool:
    name = name.lower()
    return name.endswith(_PRIVATE_SUFFIXES) or (name.startswith(_PRIVATE_NAMES) and not name.endswith(".pub"))
