"""Certificates: their contents, whether one was issued by another, which host names they are for.

Nothing here asks a service.
"""

from __future__ import annotations

import contextlib
import ipaddress
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any

from stackhand.engine.compose.project import Service

_PEM = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
_PUBLIC_KEY = re.compile(r"-----BEGIN PUBLIC KEY-----.+?-----END PUBLIC KEY-----", re.DOTALL)
_PRIVATE_KEY = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.+?-----END [A-Z ]*PRIVATE KEY-----", re.DOTALL)
# Words of folders and volumes with certificates or keys, and of programs that fetch them.
_PLACES = frozenset(
    "acme ca cas cert certificate certificates certs keys letsencrypt pki ssl step tls".split()  # noqa: SIM905
)
_MAKERS = frozenset("acme certbot cfssl dehydrated easyrsa lego minica mkcert stepca".split())  # noqa: SIM905
# A chain has a server's certificate, rarely more than two between, and the authority's.
_LONGEST_CHAIN = 8


@dataclass(frozen=True)
class Certificate:
    """One certificate. `names` are the host names and addresses that it carries, `key` its public key (DER)."""

    subject: str
    issuer: str
    begins: datetime
    ends: datetime
    names: tuple[str, ...] = ()
    authority: bool = False
    key: bytes = field(default=b"", repr=False)
    der: bytes = field(default=b"", repr=False)

    @cached_property
    def fingerprint(self) -> str:
        """The SHA-256 of the certificate, as openssl shows it without the colons."""
        import hashlib

        return hashlib.sha256(self.der).hexdigest()

    def __str__(self) -> str:
        return f"{self.subject}, valid {self.begins:%Y-%m-%d %H:%M} to {self.ends:%Y-%m-%d %H:%M} UTC"


@dataclass(frozen=True)
class CertificateFile:
    """One file with certificates, a private key, or both, as the service sees it.

    `mode` are its permissions, None where they could not be seen; `changed` when it was last written or replaced.
    `key` is the public half of the private key in it (DER): None where there is none, b"" where it cannot be read.
    """

    path: str
    certificates: tuple[Certificate, ...] = ()
    key: bytes | None = field(default=None, repr=False)
    mode: int | None = None
    owner: str = ""
    changed: datetime | None = None

    @property
    def leaf(self) -> Certificate | None:
        """The certificate that a server shows as its own, which comes first; None where there are authorities only."""
        first = next(iter(self.certificates), None)
        return None if first is None or (first.authority and first.subject == first.issuer) else first

    @property
    def first(self) -> Certificate | None:
        """The certificate that comes first, whatever it is: what a server shows that is given this file."""
        return next(iter(self.certificates), None)

    @property
    def folder(self) -> str:
        """The folder that the file is in."""
        return self.path.rpartition("/")[0]

    @property
    def stem(self) -> str:
        """The file's name, without its extension."""
        return self.path.rpartition("/")[2].rpartition(".")[0]


def read(text: str) -> tuple[Certificate, ...]:
    """Return the certificates in a text, in their order. What cannot be read is left out."""
    from cryptography import x509

    found = []
    for block in _PEM.findall(text):
        try:
            found.append(_certificate(x509.load_pem_x509_certificate(block.encode())))
        except ValueError:
            continue
    return tuple(found)


def public_key(text: str) -> bytes | None:
    """Return the public key in a text, or that of the private key in it, as DER; None where there is neither."""
    from cryptography.hazmat.primitives import serialization

    public, private = _PUBLIC_KEY.search(text), _PRIVATE_KEY.search(text)
    try:
        if public:
            key: Any = serialization.load_pem_public_key(public[0].encode())
        elif private:
            key = serialization.load_pem_private_key(private[0].encode(), password=None).public_key()
        else:
            return None
    except (ValueError, TypeError):  # TypeError: it wants a passphrase
        return None
    return _der(key)


def issued_by(certificate: Certificate, authority: Certificate) -> bool:
    """Return whether one certificate carries the other's signature."""
    from cryptography import x509
    from cryptography.exceptions import InvalidSignature

    try:
        ca = x509.load_der_x509_certificate(authority.der)
        x509.load_der_x509_certificate(certificate.der).verify_directly_issued_by(ca)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def leads_to(chain: Sequence[Certificate], authorities: Iterable[Certificate]) -> bool:
    """Return whether a server's certificate was issued by one of these, directly or through those of its chain."""
    wanted = list(authorities)
    current, between = chain[0], list(chain[1:])
    for _ in range(_LONGEST_CHAIN):
        if any(current.fingerprint == each.fingerprint or issued_by(current, each) for each in wanted):
            return True
        issuer = next((each for each in between if issued_by(current, each)), None)
        if issuer is None:
            return False
        between.remove(issuer)
        current = issuer
    return False


def carries(certificate: Certificate, name: str) -> bool:
    """Return whether a certificate is for a host name or an address.

    `*` stands for one label: https://www.rfc-editor.org/rfc/rfc6125#section-6.4.3.
    """
    wanted = _plain(name)
    for pattern in certificate.names:
        if _plain(pattern) == wanted:
            return True
        if pattern.startswith("*.") and not _is_address(wanted):
            label, _, rest = wanted.partition(".")
            if label and rest == pattern[2:].lower():
                return True
    return False


def validity(certificate: Certificate, now: datetime, days: float) -> str:
    """Return "" where a certificate is valid, else what is wrong with its dates; "soon" within so many days of its end.

    The words are "expired", "not yet valid" and "soon". What lives no longer than that is renewed by a program, as by
    Caddy in the last third of its life: only its last quarter is "soon".
    """
    if now >= certificate.ends:
        return "expired"
    if now < certificate.begins:
        return "not yet valid"
    life, near = certificate.ends - certificate.begins, timedelta(days=days)
    return "soon" if now + (near if life > near else life / 4) >= certificate.ends else ""


def writable_mounts(service: Service) -> list[tuple[str, str]]:
    """Return the volumes and folders that a service can write to: where they come from, and where they are in it."""
    return [
        (str(each.get("source") or ""), str(each.get("target") or ""))
        for each in service.raw.get("volumes") or ()
        if not each.get("read_only") and each.get("type") in ("volume", "bind")
    ]


def keeps_certificates(service: Service) -> bool:
    """Return whether a service writes certificates or keys into a volume: an authority's key comes back from nowhere.

    >>> volume = {"type": "volume", "source": "ca", "target": "/ca"}
    >>> keeps_certificates(Service("certs", "alpine", raw={"volumes": [volume]}))
    True
    >>> keeps_certificates(Service("web", "nginx", raw={"volumes": [{**volume, "read_only": True}]}))
    False
    """
    mounts = writable_mounts(service)
    image = _words(service.image.rpartition("/")[2].partition(":")[0])
    # Caddy fetches certificates by itself, and keeps them in /data.
    by_caddy = "caddy" in image and any(target.rstrip("/") == "/data" for _, target in mounts)
    in_place = any(_words(f"{source}/{target}") & _PLACES for source, target in mounts)
    return by_caddy or in_place or bool(mounts and image & _MAKERS)


def _words(text: str) -> set[str]:
    return set(re.split(r"[^a-z0-9]+", text.lower()))


def _certificate(found: Any) -> Certificate:
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding

    extensions = found.extensions
    names: list[str] = []
    authority = False
    try:
        alternatives = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        names = [str(each.value) for each in alternatives if isinstance(each, x509.DNSName | x509.IPAddress)]
    except x509.ExtensionNotFound:
        # Older programs take the common name where no other is given; Go's and browsers don't.
        names = [str(each.value) for each in found.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)]
    with contextlib.suppress(x509.ExtensionNotFound):
        authority = bool(extensions.get_extension_for_class(x509.BasicConstraints).value.ca)
    return Certificate(
        subject=found.subject.rfc4514_string(),
        issuer=found.issuer.rfc4514_string(),
        begins=found.not_valid_before_utc,
        ends=found.not_valid_after_utc,
        names=tuple(names),
        authority=authority,
        key=_der(found.public_key()),
        der=found.public_bytes(Encoding.DER),
    )


def _der(key: Any) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    encoded: bytes = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return encoded


def _plain(name: str) -> str:
    """Return a name as it is compared: `[::1]` and `0:0:0:0:0:0:0:1` are one."""
    bare = name.strip("[]").rstrip(".").lower()
    try:
        return str(ipaddress.ip_address(bare))
    except ValueError:
        return bare


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
