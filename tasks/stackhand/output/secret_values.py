"""What counts as a secret: names that say so, passwords in a text, and whether a value could be an ordinary word."""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Iterator
from functools import lru_cache
from urllib.parse import quote, unquote

_SECRET_NAME = re.compile(
    r"passw(or)?d|passphrase|passcode|(?<!by)(?<!com)(?<!over)pass$|requirepass|masterauth|secret|token(?!iz)|credential|cookie|authorization"
    r"|(^|_)(pass|pwd|pw|salt|pat|sig|jwt|key)(_|$)|(^|_)auth(_header|_string)?$|basic_?auth(_users)?$"
    r"|(api|access|account|private|secret|shared|master|encryption|signing)_?key"
)
# What such a name ends with when its value is a place or a setting: POSTGRES_PASSWORD_FILE, COOKIE_DOMAIN, TOKEN_TTL.
_NO_SECRET = re.compile(
    r"_(file|path|dir|name|id|url|uri|url_prefix|prefix|endpoint|issuer|audience|host|port|domain|sock|user(name)?"
    r"|len(gth)?|size|limit|count|min|max|ttl|age|lifetime|timeout|interval|exp(ir\w*)?|minutes|seconds|hours|days|at|in"
    r"|enabled?|disabled?|required|active|secure|samesite|httponly|algorithm|alg|type|method|mode|policy|provider"
    r"|backend|store|format|version|rotation|field|claim|scopes?|hint)$"
    r"|public_?key"
)
_PASSWORD_NAME = re.compile(
    r"passw(or)?d|passphrase|passcode|(?<!by)(?<!com)(?<!over)pass$|requirepass|masterauth|(^|_)(pass|pwd|pw|sig)(_|$)|(account|access)_?key$"
)
# A role, a database, a host: https://www.postgresql.org/docs/current/libpq-envars.html, and what others call them.
_PUBLIC_NAME = re.compile(r"(^|_)(user(name)?|login|role|owner|db|db_?name|database|host(name)?)$")

# These occur everywhere. Masking them would garble text and protect nothing.
_NO_VALUE = re.compile(
    r"|(?i:true|false|none|null|nil|yes|auto|disabled?|enabled|require|prefer|invalid)|\*+|%\w|<[^>]*>|\{[^}]*\}?|\$\$?\{?[A-Z_][A-Z0-9_]*\}?"
)
# Shorter values are not masked by value.
MIN_LENGTH = 4
_WORDS = re.compile(r"(?:[a-z]{1,15}|[A-Z]{1,15}|[A-Z][a-z]{1,14})(?:[-_. /][a-z]{1,15}|[-_. /][A-Z][A-Za-z]{0,14})*")
_PATH = re.compile(r"(?:~|\.{1,2})?(?:/[\w.@-]{1,40}){2,}/?")

_SCHEME = r"(?<![\w+.-])[a-zA-Z][\w+.-]{0,30}://"
# The password ends at the last @ of the authority, as in urllib. A password that was not escaped may contain a slash,
# which ends the authority; then only a port, which is all digits, is not a password.
_URL_PASSWORD = re.compile(
    rf"{_SCHEME}[^\s/:@]{{0,256}}:(?P<secret>[^\s/\"']{{1,256}}(?=@[^@\s/]*)|(?!\d+/)[^\s@\"']{{1,256}}(?=@))"
)
# A token in the place of the user: `https://TOKEN@host`.
_URL_TOKEN = re.compile(rf"{_SCHEME}(?P<secret>[\w~.+-]{{16,512}})(?=@)")
# What a text has to contain, and where the secret is then.
_MARKED: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("PRIVATE KEY", re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----(?P<secret>.+?)(?=-----END|\Z)", re.DOTALL)),
    (
        # https://www.rfc-editor.org/rfc/rfc9110#name-authorization
        "uthorization",
        re.compile(r"(?i)\bauthorization\\?[\"']?\s*[:=]\s*\\?[\"']?([a-z]+\s+)?(?P<secret>[^\s\"',;\\]+)"),
    ),
    ("ookie:", re.compile(r"(?i)\bcookie:\s*(?P<secret>[\w.-]+=[^\n\"\\]+)")),
    ("earer ", re.compile(r"\b[Bb]earer\s+(?P<secret>(?=[a-zA-Z._~+/=-]*[0-9])[\w.~+/=-]{8,}|[\w.~+/=-]{20,})")),
    ("asic ", re.compile(r"\b[Bb]asic\s+(?P<secret>(?=[a-zA-Z+/=]*[0-9A-Z=])[\w+/]{8,}={0,2})(?![\w-])")),
    ("redis-cli ", re.compile(r"\bredis-cli\s[^\n|;&]{0,200}?\s?(?:-a|--pass)\s+(?P<secret>[^\s\"']+)")),
    (" -p", re.compile(r"\b(?:mysql|mariadb)[\w-]*\s[^\n|;&]{0,200}?\s?-p(?P<secret>[^\s\"'=]+)")),
    # Tokens that tell themselves: of GitHub, GitLab, Slack, OpenAI, Hugging Face, npm; JSON web tokens.
    ("gh", re.compile(r"\b(?P<secret>gh[pousr]_\w{20,}|github_pat_\w{20,})")),
    ("gl", re.compile(r"\b(?P<secret>glpat-[\w-]{20,})")),
    ("xox", re.compile(r"\b(?P<secret>xox[abprs]-[\w-]{10,})")),
    ("sk-", re.compile(r"\b(?P<secret>sk-[\w-]{20,})")),
    ("hf_", re.compile(r"\b(?P<secret>hf_\w{20,})")),
    ("npm_", re.compile(r"\b(?P<secret>npm_\w{30,})")),
    ("eyJ", re.compile(r"\b(?P<secret>eyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*)")),
)
# `password=…` in a connection string, a URL's query, an INI file, JSON. A comma or & ends a value that is not quoted
# only before the next key, for it may be part of a password.
_KEY = re.compile(
    r"(?<![\w.-])(?P<flag>--)?(?P<key>[A-Za-z_][\w.-]{1,60})"
    r"(?P<sign>\\?[\"']\s{0,3}:|=|\s{1,3}=|\s?:|(?(flag)\s+(?!-)|(?!)))\s{0,3}(?![/=])"
)
_VALUE = re.compile(
    r"\\?\"(?P<double>(?:[^\"\\\n]|\\(?!\")[^\n])*)|\\?'(?P<single>(?:[^'\\\n]|\\[^\n])*)"
    r"|(?P<bare>(?:[^\s;&,\"'\\]|[&,](?!\s|[\w.-]+=|$)|\\[^\s\"'])+)"
)


def _plain(name: str) -> str:
    """Return a name in lower case with underscores: `AccountKey` and `account-key` as `account_key`."""
    return re.sub(r"\W+", "_", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name)).replace(".", "_").lower()


@lru_cache(maxsize=4096)
def is_secret_name(name: str) -> bool:
    """Return whether an environment variable or a key of this name holds a secret.

    >>> [is_secret_name(n) for n in ("POSTGRES_PASSWORD", "DB_PASSWORD_FILE", "AccountKey", "KEYBOARD", "PWD")]
    [True, False, True, False, False]
    """
    plain = _plain(name)
    if name in ("PWD", "OLDPWD"):
        return False  # the shell's variables for its current and its last folder
    return bool(_SECRET_NAME.search(plain)) and not _NO_SECRET.search(plain)


def is_public_name(name: str) -> bool:
    """Return whether the value of an environment variable of this name is a name itself: of a role, a database, a host.

    >>> [is_public_name(n) for n in ("POSTGRES_USER", "DB_HOST", "DB_PASSWORD", "MODE")]
    [True, True, False, False]
    """
    return bool(_PUBLIC_NAME.search(_plain(name)))


def looks_like_word(value: str) -> bool:
    """Return whether a value could stand in any text with another meaning: words, a short name, a number, a path.

    >>> [looks_like_word(v) for v in ("shop", "shop-api", "db1", "5432", "/etc/ssl/key.pem", "hunter22", "kR9vXw2")]
    [True, True, True, True, True, False, True]
    """
    if value.isdigit():
        return len(value) < 12
    return (len(value) < 8 and value.isalnum()) or bool(_WORDS.fullmatch(value) or _PATH.fullmatch(value))


def is_common(value: str) -> bool:
    """Return whether a value is one of those that occur everywhere, such as `true`."""
    return bool(_NO_VALUE.fullmatch(value.strip()))


def passwords(text: str, *, only_in_urls: bool = False) -> Iterator[tuple[int, int]]:
    """Yield where in a text secrets are that what stands before them gives away: `password=`, `//user:`, `Bearer`.

    Their value need not be known. Each is a start and an end; they are in no order, and may overlap.
    """
    if "://" in text:
        yield from (found.span("secret") for found in _URL_PASSWORD.finditer(text) if not is_common(found["secret"]))
        yield from (found.span("secret") for found in _URL_TOKEN.finditer(text) if not looks_like_word(found["secret"]))
    if only_in_urls:
        return
    for mark, pattern in _MARKED:
        if mark in text:
            yield from (found.span("secret") for found in pattern.finditer(text) if not is_common(found["secret"]))
    at = 0
    while key := _KEY.search(text, at):
        at = key.end()
        value = _VALUE.match(text, at) if is_secret_name(key["key"]) else None
        if value and _is_secret(key["key"], key["sign"], value):
            at = value.end()
            yield value.span(value.lastgroup or 0)


def _is_secret(key: str, sign: str, value: re.Match[str]) -> bool:
    """Return whether the value of a secret's key is a secret: `password=required` is, `password: required` is not."""
    kind = value.lastgroup or ""
    certain = sign in ("=", " ") or kind != "bare"
    if is_common(value[kind]):
        return False
    return (certain and bool(_PASSWORD_NAME.search(_plain(key)))) or not looks_like_word(value[kind])


def secrets_of(name: str, value: str) -> Iterator[str]:
    """Yield the secrets in the value of an environment variable."""
    for start, end in passwords(value):
        found = value[start:end]
        yield from (found, unquote(found))
        if "\\" in found:
            yield found.encode("latin-1", "backslashreplace").decode("unicode_escape")
    if not is_secret_name(name):
        return
    # A path is a place, and a number that short is a setting, unless the name says password.
    harmless = _PATH.fullmatch(value) or (value.isdigit() and len(value) < 8)
    if harmless and not _PASSWORD_NAME.search(_plain(name)):
        return
    yield value
    scheme, _, credentials = value.partition(" ")
    if scheme.lower() in ("bearer", "basic", "token", "apikey"):
        yield credentials
        if scheme.lower() == "basic":
            value = _decoded(credentials)
    if re.search(r"auth|credential|header|htpasswd", name, re.IGNORECASE):
        # `user:password`; Neo4j has a slash.
        yield re.split(r"[:/]", value, maxsplit=1)[-1]


def _decoded(text: str) -> str:
    try:
        return base64.b64decode(text, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return ""


def forms(value: str) -> Iterator[str]:
    """Yield a secret as programs print it: as it is, line by line, escaped for a URL, JSON and Compose, in base64."""
    lines = [line.strip() for line in value.splitlines()]
    # Without the line feed that ends a file: it also ends a line of a log.
    value = value.strip()
    yield from (value, *(line for line in lines if not line.startswith("-----")))
    yield from (quote(value, safe=""), quote(value))
    yield quote(value, safe="").replace("%20", "+")
    yield value.replace("$", "$$")
    yield from (json.dumps(value, ensure_ascii=plain)[1:-1] for plain in (True, False))
    if len(value) < MIN_LENGTH or len(value) > 4096:
        return
    raw = value.encode()
    yield base64.b64encode(raw).decode()
    # What stands before it shifts the letters; those that depend on its neighbours are left out.
    for before in range(3):
        encoded = base64.b64encode(b"\0" * before + raw).decode()
        inner = encoded[(0, 2, 3)[before] : (before + len(raw)) * 8 // 6]
        if len(inner) >= 12:
            yield from (inner, inner.translate(str.maketrans("+/", "-_")))
