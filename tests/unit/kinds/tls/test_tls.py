"""The kind tls: which services it recognises, what it says of certificates, and when it acts."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from functools import cache
from typing import Any

import pytest
from builders import needs, project, service

from stackhand.checks.check import Fix
from stackhand.checks.connections import clients
from stackhand.checks.traits import Traits, traits
from stackhand.kinds.registry import data_kind
from stackhand.kinds.tls import certificates, handshake
from stackhand.kinds.tls import checks as tls_checks
from stackhand.kinds.tls import kind as tls
from stackhand.kinds.tls.certificates import Certificate, CertificateFile
from stackhand.kinds.tls.checks import Expectations
from stackhand.kinds.tls.handshake import Presented, TlsObservation

NOW = datetime(2026, 11, 23, 12, tzinfo=timezone.utc)
DAY = timedelta(days=1)
CRT, KEY, CA = "/tls/server.crt", "/tls/server.key", "/tls/ca.crt"


@cache
def private_key(name: str) -> Any:
    """A key of its own for each name."""
    from cryptography.hazmat.primitives.asymmetric import ec

    return ec.generate_private_key(ec.SECP256R1())


@cache
def pem(
    subject: str = "leaf",
    names: tuple[str, ...] = ("localhost",),
    by: str = "ca",
    begins: float = -10,
    ends: float = 100,
    signer: str = "",
) -> str:
    """A certificate as PEM: `by` is the issuer, `signer` whose key signs; days from now."""
    import ipaddress

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization

    def called(name: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])

    def alternative(name: str) -> x509.GeneralName:
        return x509.IPAddress(ipaddress.ip_address(name)) if name[0].isdigit() else x509.DNSName(name)

    builder = (
        x509.CertificateBuilder()
        .subject_name(called(subject))
        .issuer_name(called(by))
        .public_key(private_key(subject).public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW + begins * DAY)
        .not_valid_after(NOW + ends * DAY)
        .add_extension(x509.BasicConstraints(ca=subject == by, path_length=None), critical=True)
    )
    if names:
        builder = builder.add_extension(
            x509.SubjectAlternativeName([alternative(each) for each in names]), critical=False
        )
    signed = builder.sign(private_key(signer or by), hashes.SHA256())
    return signed.public_bytes(serialization.Encoding.PEM).decode()


def leaf(**more: Any) -> tuple[Certificate, ...]:
    return certificates.read(pem(**more))


def authority(subject: str = "ca", **more: Any) -> tuple[Certificate, ...]:
    return certificates.read(pem(subject=subject, by=subject, names=(), **{"ends": 1000, **more}))


def seeing(
    on_disk: tuple[Certificate, ...] | None = None,
    served: tuple[Certificate, ...] | None = None,
    *,
    ca: tuple[Certificate, ...] | None = None,
    key: bytes | None = None,
    mode: int = 0o600,
    changed: datetime = NOW - 5 * DAY,
) -> TlsObservation:
    """What a service with one certificate shows; all is well where nothing else is said."""
    chain = leaf() if on_disk is None else on_disk
    files = (
        CertificateFile(CRT, chain, mode=0o644, changed=changed),
        CertificateFile(KEY, key=chain[0].key if key is None else key, mode=mode, owner="10001:10001"),
        CertificateFile(CA, authority() if ca is None else ca, mode=0o644),
    )
    return TlsObservation(
        (Presented(8443, "localhost", chain if served is None else served),), files, tool="openssl", asker="web"
    )


def expecting(**more: Any) -> Expectations:
    facts: dict[str, Any] = {
        "names": {"localhost": "its healthcheck asks for it"},
        "authorities": (CA,),
        "named": frozenset({CRT, KEY}),
        "port": 8443,
        "issuer_job": "certs",
        "started": NOW - 4 * DAY,
    }
    return Expectations(**{**facts, **more})


RENEW = Fix("renew the certificates of", lambda: None)


def judged(observed: TlsObservation, expectations: Expectations) -> dict[str, tuple[str, bool]]:
    """The status of each question, and whether it would be put right; those that are well are left out."""
    found = {
        name: verdict
        for name in tls_checks.EVALUATORS
        for verdict in tls_checks.evaluate(name, observed, expectations, NOW, RENEW)
    }
    return {name: (each.status, each.fix is RENEW) for name, each in found.items() if each.status != "ok"}


FAIL, LEFT = ("fail", True), ("fail", False)
SOON, TOLD = ("warn", False), ("warn", False)
OTHER = certificates.read(pem(subject="other"))[0].key
LATER = NOW - 1 * DAY


@pytest.mark.parametrize(
    ("seen", "circumstances", "expected"),
    [
        pytest.param(seeing(), expecting(), {}, id="all is well"),
        pytest.param(seeing(leaf(ends=-1)), expecting(), {"dates": FAIL}, id="expired"),
        pytest.param(
            seeing(leaf(ends=-1)), expecting(issuer_job=None), {"dates": LEFT}, id="expired, and nobody makes them"
        ),
        pytest.param(seeing(leaf(begins=1)), expecting(), {"dates": FAIL}, id="not yet valid"),
        pytest.param(seeing(leaf(ends=10)), expecting(), {"dates": SOON}, id="it ends soon"),
        pytest.param(seeing(ca=authority(ends=-1)), expecting(), {"dates": FAIL}, id="its authority has expired"),
        pytest.param(seeing(leaf(names=("elsewhere",))), expecting(), {"names": FAIL}, id="another name"),
        pytest.param(seeing(leaf(signer="other")), expecting(), {"chain": FAIL}, id="not signed by the authority"),
        pytest.param(seeing(ca=authority("other")), expecting(), {"chain": FAIL}, id="the healthcheck trusts another"),
        pytest.param(
            seeing(ca=authority("other")),
            expecting(authorities=()),
            {"chain": TOLD},
            id="another authority lies beside it",
        ),
        pytest.param(seeing(key=OTHER), expecting(), {"key": FAIL}, id="the key is another's"),
        pytest.param(
            seeing(key=OTHER), expecting(issuer_job=None), {"key": LEFT}, id="the key is another's, nobody makes it"
        ),
        pytest.param(seeing(key=b""), expecting(), {"key": ("skip", False)}, id="the key cannot be read"),
        pytest.param(seeing(mode=0o644), expecting(), {"permissions": TOLD}, id="everybody can read the key"),
        pytest.param(seeing(mode=0o640), expecting(), {}, id="its group may read the key"),
        pytest.param(
            seeing(leaf(ends=99), leaf(), changed=LATER), expecting(), {"served": ("warn", True)}, id="not taken up yet"
        ),
        pytest.param(
            seeing(leaf(ends=99), leaf()), expecting(), {"served": TOLD}, id="it started after the file was written"
        ),
        pytest.param(
            seeing(leaf(), leaf(ends=-1), changed=LATER),
            expecting(issuer_job=None),
            {"dates": FAIL, "served": ("warn", True)},
            id="the new one is there, the old one expired: a restart is enough",
        ),
        pytest.param(
            seeing(leaf(ends=99), leaf(), key=OTHER, changed=LATER),
            expecting(issuer_job=None),
            {"key": LEFT, "served": TOLD},
            id="nothing is restarted on a pair that does not fit",
        ),
        pytest.param(
            seeing(leaf(names=("elsewhere",)), leaf(), changed=LATER),
            expecting(),
            {"names": FAIL, "served": ("warn", True)},
            id="a bad one lies ready",
        ),
    ],
)
def test_what_is_said_of_certificates(
    seen: TlsObservation, circumstances: Expectations, expected: dict[str, tuple[str, bool]]
) -> None:
    assert judged(seen, circumstances) == expected


def test_of_several_files_the_one_that_is_served_counts() -> None:
    old, new = leaf(ends=-1), leaf()
    files = (CertificateFile("/tls/archive/1.crt", old), CertificateFile("/tls/live.crt", new))
    seen = TlsObservation((Presented(8443, "localhost", new),), files)
    assert tls_checks.in_use(seen, expecting(named=frozenset())) == files[1]
    assert judged(seen, expecting(named=frozenset(), authorities=()))["key"] == ("skip", False)


def test_a_file_for_other_names_that_nobody_names_is_not_taken_for_the_servers() -> None:
    files = (CertificateFile("/tls/client.crt", leaf(names=("client",))),)
    assert (
        tls_checks.in_use(TlsObservation((Presented(8443, "localhost", leaf()),), files), expecting(named=frozenset()))
        is None
    )


@pytest.mark.parametrize(
    ("names", "name", "good"),
    [
        (("localhost",), "localhost", True),
        (("*.example.com",), "a.example.com", True),
        (("*.example.com",), "a.b.example.com", False),
        (("*.example.com",), "example.com", False),
        (("127.0.0.1",), "127.0.0.1", True),
        (("localhost",), "127.0.0.1", False),
        (("Example.com",), "example.COM.", True),
        ((), "leaf", True),
    ],
)
def test_names_and_addresses(names: tuple[str, ...], name: str, good: bool) -> None:
    assert certificates.carries(leaf(names=names)[0], name) is good


def test_a_chain_leads_through_those_between() -> None:
    between = certificates.read(pem(subject="between", by="ca", names=()))
    last = certificates.read(pem(by="between"))
    assert certificates.leads_to((*last, *between), authority())
    assert not certificates.leads_to(last, authority())


def test_the_answer_of_the_script_and_its_secrets() -> None:
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    secret = private_key("leaf").private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    text = "\n".join(
        [
            "\n\036tool openssl\n\n\036served 8443 localhost\nCONNECTED(00000003)",
            pem(),
            "\n\036served 9443 localhost",
            "40E7:error:0A00010B:SSL routines:ssl3_get_record:wrong version number:../ssl.c:354:",
            f"\n\036file 644 10001:10001 1795460000 {CRT}\n{pem()}",
            f"\n\036file 600 10001:10001 1795460000 {KEY}\n\036key\n{secret}",
            "\n\036file 600 0:0 1795460000 /tls/locked.key\n\036unreadable",
            "\n\036file 644 0:0 1795460000 /etc/other.pem",
            f"\036named {CRT}",
        ]
    )
    learnt: list[str] = []
    found = handshake.parse(text, learnt.append)
    assert [(each.port, len(each.chain), each.said) for each in found.presented] == [
        (8443, 1, ""),
        (9443, 0, "SSL routines: wrong version number"),
    ]
    files = {file.path: file for file in found.files}
    assert set(files) == {CRT, KEY, "/tls/locked.key"}
    assert files[KEY].key == files[CRT].certificates[0].key
    assert files[KEY].mode == 0o600
    assert files["/tls/locked.key"].key == b""
    assert found.named == {CRT}
    assert secret.strip() in learnt
    assert secret.splitlines()[1] in learnt
    assert "PRIVATE" not in repr(found)


@pytest.mark.parametrize(
    ("traits_", "recognised"),
    [
        (Traits(probe="curl -fsS --cacert /tls/ca.crt https://localhost:8443/health"), True),
        (Traits(probe="curl -fsS http://localhost:8080/health"), False),
        (Traits(probe="curl https://example.com/up"), False),
        (Traits(argv=("uvicorn", "app:app", "--ssl-certfile=/tls/a.crt")), True),
        (Traits(argv=("gunicorn", "--certfile", "/tls/a.crt")), True),
        (Traits(environment={"APP_TLS_CERT": "/tls/a.crt", "APP_TLS_KEY": "/tls/a.key"}), True),
        (Traits(environment={"CERT_NAMES": "localhost"}), False),
        # What a client shows is no service's.
        (Traits(environment={"PGSSLCERT": "/c/a.crt", "PGSSLKEY": "/c/a.key"}), False),
        (Traits(environment={"DB_SSL_CERT": "/c/a.crt", "DB_SSL_KEY": "/c/a.key", "DB_HOST": "db"}), False),
        (Traits(environment={"KAFKA_SSL_CERT_FILE": "/c/a.pem", "KAFKA_SSL_KEY_FILE": "/c/a.key"}), False),
        (Traits(environment={"REDIS_TLS_CERT_FILE": "/c/a.crt", "REDIS_TLS_KEY_FILE": "/c/a.key"}), False),
        (
            Traits(
                images=frozenset({"redis"}),
                environment={"REDIS_TLS_CERT_FILE": "/c/a.crt", "REDIS_TLS_KEY_FILE": "/c/a.key"},
            ),
            True,
        ),
        (Traits(environment={"TLS_CERT": "/certs/client.crt", "TLS_KEY": "/certs/client.key"}), False),
        (
            Traits(environment={"LEDGER_TLS_CERT": "/c/a.crt", "LEDGER_TLS_KEY": "/c/a.key", "LEDGER_HOST": "ledger"}),
            False,
        ),
        (Traits(environment={"APP_TLS_CERT": "/c/a.crt", "APP_TLS_KEY": "/c/a.key", "APP_HOST": "0.0.0.0"}), True),
        (
            Traits(environment={"APP_TLS_CERT": "/c/a.crt", "APP_TLS_KEY": "/c/a.key", "APP_HOST": "shop.example.com"}),
            True,
        ),
        (Traits(argv=("agent", "--cert", "/certs/client.pem")), False),
        (Traits(argv=("agent", "--tls-client-cert", "/c/a.pem")), False),
        (Traits(argv=("mysql", "--ssl-mode=REQUIRED", "-h", "db")), False),
        (Traits(argv=("redis-cli", "--tls", "--cert", "/c/a.crt", "--key", "/c/a.key")), False),
        (Traits(argv=("app", "--tls-insecure")), False),
        (Traits(argv=("redis-server", "--tls-port", "6379", "--tls-cert-file", "/c/a.crt")), True),
        (Traits(environment={"SSL_CERT_FILE": "/etc/ssl/certs/ca-certificates.crt"}), False),
        (Traits(images=frozenset({"nginx"}), ports=frozenset({443})), True),
        (Traits(images=frozenset({"nginx"}), ports=frozenset({80})), False),
    ],
)
def test_recognition(traits_: Traits, recognised: bool) -> None:
    assert tls.Tls().matches(traits_) is recognised


@pytest.mark.parametrize(
    ("probe", "environment", "names", "authorities"),
    [
        (["CMD", "curl", "--cacert", CA, "https://localhost:8443/x"], {}, ["localhost"], (CA,)),
        (["CMD", "curl", "-fsSk", "https://localhost:8443/x"], {}, [], ()),
        (["CMD-SHELL", "wget --no-check-certificate -O- 'https://127.0.0.1/'"], {}, [], ()),
        ([], {"API_URL": "https://web:8443/api"}, ["web"], ()),
        ([], {"API_URL": "http://web:8080/api"}, [], ()),
    ],
)
def test_expectations(
    probe: list[str], environment: dict[str, str], names: Sequence[str], authorities: tuple[str, ...]
) -> None:
    web = service("web", raw={"healthcheck": {"test": probe}} if probe else {})
    stack = project(web, service("other", environment=environment))
    expected = tls.expectations(web, clients(stack))
    assert (list(expected.names), expected.authorities) == (list(names), authorities)


def mount(source: str, target: str, *, read_only: bool = False) -> dict[str, Any]:
    return {"type": "volume", "source": source, "target": target, "read_only": read_only}


def test_the_issuer_job_is_the_one_shot_that_writes_where_the_certificate_lies() -> None:
    done = "service_completed_successfully"
    volumes = {"volumes": [mount("tls", "/tls", read_only=True), mount("static", "/srv")]}
    web = service("web", needs("collect", done), needs("certs", done), raw=volumes)
    stack = project(
        web,
        service("collect", raw={"volumes": [mount("static", "/out")]}),
        service("certs", raw={"volumes": [mount("ca", "/ca"), mount("tls", "/made")]}),
    )
    assert tls._issuer_job(stack, web, CRT) == "certs"
    assert tls._issuer_job(stack, web, "/etc/own.crt") is None


@pytest.mark.parametrize(
    ("image", "volume", "kept"),
    [
        ("alpine", mount("ca", "/ca"), "tls"),
        ("alpine", mount("certs-data", "/out"), "tls"),
        ("certbot/certbot", mount("state", "/etc/letsencrypt"), "tls"),
        ("caddy:2", mount("caddy_data", "/data"), "tls"),
        ("nginx", mount("tls", "/etc/nginx/certs", read_only=True), None),
        ("nginx", mount("cache", "/var/cache/nginx"), None),
    ],
)
def test_volumes_with_certificates_are_kept(image: str, volume: dict[str, Any], kept: str | None) -> None:
    assert data_kind(service("one", image=image, raw={"volumes": [volume]})) == kept


def test_only_what_may_hold_certificates_is_searched() -> None:
    web = service(
        "web",
        raw={
            "command": ["nginx", "-c", "/etc/web.conf"],
            "volumes": [mount("tls", "/tls"), mount("uploads", "/srv/uploads")],
            "secrets": [{"source": "web_key"}],
        },
    )
    assert traits(web).argv
    assert tls._places(web) == ["config:/etc/web.conf", "/tls", "config:/srv/uploads", "/run/secrets/web_key"]


@pytest.mark.parametrize(
    ("begins", "ends", "word"),
    [
        (-80, 10, "soon"),
        (-70, 20, ""),
        (-0.2, 0.3, ""),
        (-0.4, 0.1, "soon"),
        (-3, 3, ""),
        (-5, 1, "soon"),
        (-1, 0, "expired"),
    ],
)
def test_what_lives_shortly_is_renewed_shortly_before_its_end(begins: float, ends: float, word: str) -> None:
    assert certificates.validity(leaf(begins=begins, ends=ends)[0], NOW, 14) == word
