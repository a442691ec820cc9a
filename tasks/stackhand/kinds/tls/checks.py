"""What is to be said of a service's certificates: judged from what it serves, its files and what is expected."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

from stackhand.kinds.tls.certificates import Certificate, CertificateFile, carries, leads_to, validity
from stackhand.kinds.tls.handshake import Shown
from stackhand.model import Finding

# Beside a server's certificate, these are the names of what it should have been issued by.
_AUTHORITY_FILES = ("ca", "root", "rootca", "root-ca", "root_ca", "chain", "issuer", "cacert", "ca-cert")
_OTHERS_MAY_READ = 0o004
_OTHERS_MAY_WRITE = 0o022


@dataclass(frozen=True)
class Expectations:
    """What is expected of a service's certificates, and what can be done about them.

    `names` are those that clients call it by, each with who does; `authorities` the files that its healthcheck trusts;
    `named` the files that command, environment and configuration name; `port` the one that answered; `maker` the
    one-shot that makes certificates; `started` the service's start; `days` before the end that a certificate warns;
    `file` the one in use, where that is known already.
    """

    names: Mapping[str, str] = field(default_factory=dict)
    authorities: tuple[str, ...] = ()
    named: frozenset[str] = frozenset()
    port: int | None = None
    maker: str | None = None
    started: datetime | None = None
    days: float = 14.0
    file: str = ""


Evaluator = Callable[[str, Shown, Expectations, datetime], Iterable[Finding]]


@dataclass(frozen=True)
class _Face:
    """A certificate with what comes after it, and where it was seen."""

    where: str
    chain: tuple[Certificate, ...]
    names: tuple[str, ...] | None = None

    @property
    def leaf(self) -> Certificate:
        return self.chain[0]


def in_use(shown: Shown, around: Expectations) -> CertificateFile | None:
    """Return the file that a service has its certificate from, None where that cannot be told.

    Where it serves what no file has, a file counts that is named by its configuration, or that is for the same names:
    the same certificate, renewed.
    """
    if around.file:
        return next((file for file in shown.files if file.path == around.file), None)
    filled = [file for file in shown.files if file.certificates]
    candidates = [file for file in filled if file.leaf]
    served = next((each.chain[0] for each in shown.on(around.port or 0)), None)
    if served:
        # One that somebody signed with itself in a hurry may look like an authority, and is served all the same.
        same = [file for file in filled if file.certificates[0].fingerprint == served.fingerprint]
        if same:
            return min(same, key=lambda file: (file.path not in around.named, file.path))
        alike = [file for file in candidates if set(file.certificates[0].names) == set(served.names)]
    else:
        alike = []
    named = [file for file in filled if file.path in around.named and file.path not in around.authorities]
    for some in (named, alike, [] if served else candidates):
        if len(some) == 1:
            return some[0]
    return None


def judge_dates(service: str, shown: Shown, around: Expectations, now: datetime) -> Iterable[Finding]:
    """Judge from when to when certificates are valid: that of the server, and those that it is trusted by."""
    faces = _faces(shown, around)
    seen = [(face.where, each) for face in (*faces, *_authority_faces(shown, around)) for each in face.chain]
    problems = [(validity(each, now, around.days), where, each) for where, each in seen]
    # An end that is near is nothing beside one that has come.
    ended = next((each for each in problems if each[0] in ("expired", "not yet valid")), None)
    soon = next((each for each in problems if each[0] == "soon"), None)
    if ended:
        problem, where, certificate = ended
        yield _bad("dates", service, around, f"its certificate is {problem}", f"{where}: {certificate}")
    elif soon:
        _, where, certificate = soon
        summary = f"its certificate ends in {(certificate.ends - now).days} days"
        remedy = _renewal(service, around)
        yield Finding("tls.dates", service, "network", "warn", summary, f"{where}: {certificate}", remedy)
    elif faces:
        yield _good("dates", service, f"its certificate is valid until {_end(faces):%Y-%m-%d}")
    else:
        yield _unseen("dates", service)


def judge_chain(service: str, shown: Shown, around: Expectations, now: datetime) -> Iterable[Finding]:
    """Judge whether the certificate is of the authority that the healthcheck trusts, or that lies beside it."""
    faces = _faces(shown, around)
    authorities = _authorities(shown, around)
    if not faces or not authorities:
        yield _unseen("chain", service, "no file says which authority its certificate should be of" if faces else "")
        return
    beside = [certificate for file in shown.files for certificate in file.certificates if certificate.authority]
    for face in faces:
        trusted = [certificate for file in authorities for certificate in file.certificates]
        if leads_to((*face.chain, *(each for each in beside if each not in trusted)), trusted):
            continue
        paths = ", ".join(file.path for file in authorities)
        evidence = f"{face.where}: {face.leaf.subject}, issued by {face.leaf.issuer}; {paths}: {trusted[0].subject}"
        summary = f"its certificate was not issued by {paths}"
        same_name = any(each.subject == face.chain[-1].issuer for each in trusted)
        if around.authorities or same_name:
            yield _bad("chain", service, around, summary, evidence)
        else:
            # An authority may lie there for the certificates of clients.
            remedy = f"{_renewal(service, around)}, or have {paths} where it is not taken for the server's"
            yield Finding("tls.chain", service, "network", "warn", summary, evidence, remedy)
        return
    yield _good("chain", service, f"its certificate is of {', '.join(file.path for file in authorities)}")


def judge_names(service: str, shown: Shown, around: Expectations, now: datetime) -> Iterable[Finding]:
    """Judge whether the certificate carries each name that the service is called by."""
    faces = _faces(shown, around)
    if not faces or not around.names:
        yield _unseen("names", service, "nothing says by which name it is called through TLS" if faces else "")
        return
    for face in faces:
        asked = around.names if face.names is None else {name: around.names[name] for name in face.names}
        missing = [name for name in asked if not carries(face.leaf, name)]
        if missing:
            why = "; ".join(f"{name}: {asked[name]}" for name in missing)
            evidence = f"{face.where} is for {', '.join(face.leaf.names) or 'no name'}; {why}"
            yield _bad("names", service, around, f"its certificate is not for {', '.join(missing)}", evidence)
            return
    yield _good("names", service, f"its certificate is for {', '.join(around.names)}")


def judge_key(service: str, shown: Shown, around: Expectations, now: datetime) -> Iterable[Finding]:
    """Judge whether the private key on disk belongs to the certificate on disk."""
    file = in_use(shown, around)
    key = _key_of(shown, around, file) if file else None
    if file is None or file.first is None or key is None or not key.key:
        why = f"{key.path} cannot be read" if key else "which key goes with its certificate cannot be told"
        yield _unseen("key", service, why)
    elif key.key != file.first.key:
        summary = f"{key.path} does not belong to {file.path}"
        evidence = f"{file.path}: {file.first}; the public key in it is another than that of {key.path}"
        yield _bad("key", service, around, summary, evidence)
    else:
        yield _good("key", service, f"{key.path} belongs to {file.path}")


def judge_permissions(service: str, shown: Shown, around: Expectations, now: datetime) -> Iterable[Finding]:
    """Judge whether somebody else can read or replace a private key."""
    keys = [file for file in shown.files if file.key is not None and file.mode is not None]
    for file in keys:
        mode = file.mode or 0
        if mode & (_OTHERS_MAY_READ | _OTHERS_MAY_WRITE):
            may = "read" if mode & _OTHERS_MAY_READ else "replaced"
            by = "everybody" if mode & (_OTHERS_MAY_READ | 0o002) else "its group"
            yield Finding(
                "tls.permissions",
                service,
                "network",
                "warn",
                f"{file.path} can be {may} by {by} in its containers",
                f"mode {mode:o}, owner {file.owner}",
                f"chmod {mode & ~0o027:o} {file.path}, where it is written"
                + (f": in {around.maker}" if around.maker else ""),
                subject=file.path,
            )
    if not keys:
        yield _unseen("permissions", service, "no private key is to be seen")
    elif not any((file.mode or 0) & (_OTHERS_MAY_READ | _OTHERS_MAY_WRITE) for file in keys):
        yield _good("permissions", service, "only those that should can read its key")


def judge_served(service: str, shown: Shown, around: Expectations, now: datetime) -> Iterable[Finding]:
    """Judge whether the service serves what is in its file, or still what was there when it started."""
    file = in_use(shown, around)
    served = next((each for each in shown.on(around.port or 0)), None)
    if file is None or served is None or file.first is None:
        yield _unseen("served", service, "which file its certificate is from cannot be told" if served else "")
    elif served.chain[0].fingerprint == file.first.fingerprint:
        yield _good("served", service, f"it serves {file.path}")
    else:
        yield Finding(
            "tls.served",
            service,
            "network",
            "warn",
            f"it serves another certificate than {file.path}",
            f"served on port {served.port}: {served.chain[0]}; {file.path}: {file.first}",
            f"`docker compose restart {service}` has it read its files again"
            if outdated(shown, around)
            else f"it has started since the file was written: see which one the configuration of {service} names",
        )


def judge(name: str, service: str, shown: Shown, around: Expectations, now: datetime) -> list[Finding]:
    """Judge one thing, and whether what is wrong can be put right: by making new files, or by reading those there."""
    found = list(JUDGES[name](service, shown, around, now))
    if not any(each.status == "fail" or each.id == "tls.served" for each in found):
        return found
    fixable = around.maker is not None if broken(shown, around, now) else outdated(shown, around)
    return [replace(each, fixable=fixable and each.status != "ok") for each in found]


def broken(shown: Shown, around: Expectations, now: datetime) -> bool:
    """Return whether the files on disk are not good, whatever is served."""
    file = in_use(shown, around)
    if file is None:
        return False
    on_disk = Shown(files=shown.files)
    around = replace(around, port=None, file=file.path)
    judges = (judge_dates, judge_chain, judge_names, judge_key)
    return any(each.status == "fail" for judge in judges for each in judge("", on_disk, around, now))


def outdated(shown: Shown, around: Expectations) -> bool:
    """Return whether a restart would have the service serve another certificate: its file is newer than its start."""
    file = in_use(shown, around)
    served = next((each.chain[0] for each in shown.on(around.port or 0)), None)
    if file is None or file.first is None or served is None or served.fingerprint == file.first.fingerprint:
        return False
    return bool(file.changed and around.started and file.changed > around.started.replace(microsecond=0))


JUDGES: Mapping[str, Evaluator] = {
    "dates": judge_dates,
    "chain": judge_chain,
    "names": judge_names,
    "key": judge_key,
    "permissions": judge_permissions,
    "served": judge_served,
}


def _faces(shown: Shown, around: Expectations) -> list[_Face]:
    """Return what is to be judged: the file in use, and what is served where that is not the same."""
    file = in_use(shown, around)
    found = [_Face(file.path, file.certificates)] if file else []
    known = {face.leaf.fingerprint for face in found}
    by_leaf: dict[str, list[str]] = {}
    for each in shown.on(around.port or 0):
        by_leaf.setdefault(each.chain[0].fingerprint, []).append(each.name)
    several = len(by_leaf) > 1
    for each in shown.on(around.port or 0):
        leaf = each.chain[0].fingerprint
        if leaf not in known:
            known.add(leaf)
            names = tuple(name for name in by_leaf[leaf] if name in around.names)
            found.append(_Face(f"served on port {each.port}", each.chain, names))
    if file and several:
        # One of several that are chosen by the name asked for: it answers for those that it is shown for.
        mine = by_leaf.get(found[0].leaf.fingerprint)
        found[0] = _Face(file.path, file.certificates, tuple(n for n in mine or () if n in around.names))
    return found


def _authorities(shown: Shown, around: Expectations) -> list[CertificateFile]:
    """Return the files of authorities that the server's certificate should be of."""
    trusted = [file for file in shown.files if file.path in around.authorities and file.certificates]
    file = in_use(shown, around)
    if trusted or file is None:
        return trusted
    return [
        other
        for other in shown.files
        if other.folder == file.folder
        and other.path.rpartition("/")[2].rpartition(".")[0].lower() in _AUTHORITY_FILES
        and any(certificate.authority for certificate in other.certificates)
    ]


def _authority_faces(shown: Shown, around: Expectations) -> list[_Face]:
    return [_Face(file.path, file.certificates[:1]) for file in _authorities(shown, around)]


def _key_of(shown: Shown, around: Expectations, file: CertificateFile) -> CertificateFile | None:
    """Return the file with the key to a certificate: itself, or the only one that its place and name point to."""
    if file.key is not None:
        return file
    beside = [other for other in shown.files if other.key is not None and other.folder == file.folder]
    stem = file.path.rpartition("/")[2].rpartition(".")[0]
    named = [other for other in shown.files if other.key is not None and other.path in around.named]
    like = [other for other in beside if other.path.rpartition("/")[2].rpartition(".")[0] == stem]
    for some in (like, named, beside):
        if len(some) == 1:
            return some[0]
    return None


def _end(faces: Iterable[_Face]) -> datetime:
    return min(face.leaf.ends for face in faces)


def _good(name: str, service: str, summary: str) -> Finding:
    return Finding(f"tls.{name}", service, "network", "ok", summary)


def _unseen(name: str, service: str, why: str = "") -> Finding:
    why = why or "it shows no certificate, and no file of one is to be seen"
    return Finding(f"tls.{name}", service, "network", "skip", "not judged", evidence=why)


def _bad(name: str, service: str, around: Expectations, summary: str, evidence: str) -> Finding:
    return Finding(f"tls.{name}", service, "network", "fail", summary, evidence, _renewal(service, around))


def _renewal(service: str, around: Expectations) -> str:
    if around.maker:
        return f"`docker compose up {around.maker}` makes it, and `docker compose restart {service}` has it read"
    return f"put a good certificate with its key in place, then `docker compose restart {service}`"
