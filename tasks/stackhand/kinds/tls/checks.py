"""What is wrong with a service's certificates, decided from what it presents, its files and what is expected."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

from stackhand.checks.check import Fix, Verdict, fail, ok, skip, warn
from stackhand.kinds.tls.certificates import Certificate, CertificateFile, carries, leads_to, validity
from stackhand.kinds.tls.handshake import TlsObservation

# Beside a server's certificate, these are the names of files with the authority that should have issued it.
_AUTHORITY_FILES = ("ca", "root", "rootca", "root-ca", "root_ca", "chain", "issuer", "cacert", "ca-cert")
_OTHERS_MAY_READ = 0o004
_OTHERS_MAY_WRITE = 0o022
_NOTHING_SEEN = "it shows no certificate, and no file of one is to be seen"


@dataclass(frozen=True)
class Expectations:
    """What is expected of a service's certificates, and what can be done about them.

    `names` are those that clients call it by, each with who does; `authorities` the files that its healthcheck trusts;
    `named` the files that command, environment and configuration name; `port` the one that answered; `issuer_job` the
    one-shot that makes certificates; `started` the service's start; `days` before its end a certificate warns; `file`
    is the one in use, where that is known already.
    """

    service: str = ""
    names: Mapping[str, str] = field(default_factory=dict)
    authorities: tuple[str, ...] = ()
    named: frozenset[str] = frozenset()
    port: int | None = None
    issuer_job: str | None = None
    started: datetime | None = None
    days: float = 14.0
    file: str = ""

    @property
    def renewal(self) -> str:
        """How to get a good certificate, for a remedy."""
        if self.issuer_job:
            return f"`docker compose up {self.issuer_job}` makes it, and {self.restart} has it read"
        return f"put a good certificate with its key in place, then {self.restart}"

    @property
    def restart(self) -> str:
        """The command that has the service read its files."""
        return f"`docker compose restart {self.service}`"


Evaluator = Callable[[TlsObservation, Expectations, datetime], Iterable[Verdict]]


@dataclass(frozen=True)
class PresentedChain:
    """A certificate with what comes after it, and where it was seen.

    `names` are those that it was presented for, None where it is the only one.
    """

    where: str
    chain: tuple[Certificate, ...]
    names: tuple[str, ...] | None = None

    @property
    def leaf(self) -> Certificate:
        """The server's own certificate, which comes first."""
        return self.chain[0]


def in_use(observed: TlsObservation, expected: Expectations) -> CertificateFile | None:
    """Return the file that a service has its certificate from, None where that cannot be told.

    Where it presents what no file has, a file counts that its configuration names, or that is for the same names: the
    same certificate, renewed.
    """
    if expected.file:
        return next((file for file in observed.files if file.path == expected.file), None)
    filled = [file for file in observed.files if file.certificates]
    candidates = [file for file in filled if file.leaf]
    presented = _presented(observed, expected)
    alike: list[CertificateFile] = []
    if presented:
        # A certificate that signed itself may look like an authority, and be in use all the same.
        same = [file for file in filled if file.certificates[0].fingerprint == presented.fingerprint]
        if same:
            return min(same, key=lambda file: (file.path not in expected.named, file.path))
        alike = [file for file in candidates if set(file.certificates[0].names) == set(presented.names)]
    named = [file for file in filled if file.path in expected.named and file.path not in expected.authorities]
    return _the_only_one(named, alike, [] if presented else candidates)


def _presented(observed: TlsObservation, expected: Expectations) -> Certificate | None:
    """Return the certificate that the service presented first, None where it did not."""
    return next((each.chain[0] for each in observed.on(expected.port)), None)


def _the_only_one(*choices: list[CertificateFile]) -> CertificateFile | None:
    """Return the file of the first choice that has just one."""
    return next((files[0] for files in choices if len(files) == 1), None)


def evaluate_dates(observed: TlsObservation, expected: Expectations, now: datetime) -> Iterable[Verdict]:
    """Yield whether certificates are valid now: the server's, and those of the authorities that it is trusted by."""
    chains = _chains(observed, expected)
    authorities = [PresentedChain(file.path, file.certificates[:1]) for file in _authorities(observed, expected)]
    seen = [(each.where, certificate) for each in (*chains, *authorities) for certificate in each.chain]
    problems = [(validity(certificate, now, expected.days), where, certificate) for where, certificate in seen]
    # An end that has come counts more than one that is near.
    ended = next((each for each in problems if each[0] in ("expired", "not yet valid")), None)
    soon = next((each for each in problems if each[0] == "soon"), None)
    if ended:
        problem, where, certificate = ended
        yield fail(f"its certificate is {problem}", f"{where}: {certificate}", expected.renewal)
    elif soon:
        _, where, certificate = soon
        summary = f"its certificate ends in {(certificate.ends - now).days} days"
        yield warn(summary, f"{where}: {certificate}", expected.renewal)
    elif chains:
        yield ok(f"its certificate is valid until {min(each.leaf.ends for each in chains):%Y-%m-%d}")
    else:
        yield skip("not judged", _NOTHING_SEEN)


def evaluate_chain(observed: TlsObservation, expected: Expectations, now: datetime) -> Iterable[Verdict]:
    """Yield whether the certificate is of the authority that the healthcheck trusts, or that lies beside it."""
    chains = _chains(observed, expected)
    authorities = _authorities(observed, expected)
    if not chains or not authorities:
        why = "no file says which authority its certificate should be of" if chains else _NOTHING_SEEN
        yield skip("not judged", why)
        return
    paths = ", ".join(file.path for file in authorities)
    trusted = [certificate for file in authorities for certificate in file.certificates]
    between = [certificate for file in observed.files for certificate in file.certificates if certificate.authority]
    between = [certificate for certificate in between if certificate not in trusted]
    wrong = next((each for each in chains if not leads_to((*each.chain, *between), trusted)), None)
    if wrong is None:
        yield ok(f"its certificate is of {paths}")
        return
    evidence = f"{wrong.where}: {wrong.leaf.subject}, issued by {wrong.leaf.issuer}; {paths}: {trusted[0].subject}"
    summary = f"its certificate was not issued by {paths}"
    if expected.authorities or any(each.subject == wrong.chain[-1].issuer for each in trusted):
        yield fail(summary, evidence, expected.renewal)
    else:
        # An authority may lie there for the certificates of clients.
        yield warn(summary, evidence, f"{expected.renewal}, or have {paths} where it is not taken for the server's")


def evaluate_names(observed: TlsObservation, expected: Expectations, now: datetime) -> Iterable[Verdict]:
    """Yield whether the certificate carries each name that the service is called by."""
    chains = _chains(observed, expected)
    if not chains or not expected.names:
        yield skip("not judged", "nothing says by which name it is called through TLS" if chains else _NOTHING_SEEN)
        return
    for each in chains:
        names = expected.names if each.names is None else {name: expected.names[name] for name in each.names}
        missing = [name for name in names if not carries(each.leaf, name)]
        if missing:
            why = "; ".join(f"{name}: {names[name]}" for name in missing)
            evidence = f"{each.where} is for {', '.join(each.leaf.names) or 'no name'}; {why}"
            yield fail(f"its certificate is not for {', '.join(missing)}", evidence, expected.renewal)
            return
    yield ok(f"its certificate is for {', '.join(expected.names)}")


def evaluate_key(observed: TlsObservation, expected: Expectations, now: datetime) -> Iterable[Verdict]:
    """Yield whether the private key on disk belongs to the certificate on disk."""
    file = in_use(observed, expected)
    key = _key_of(observed, expected, file) if file else None
    if file is None or file.first is None or key is None or not key.key:
        why = f"{key.path} cannot be read" if key else "which key goes with its certificate cannot be told"
        yield skip("not judged", why)
    elif key.key != file.first.key:
        evidence = f"{file.path}: {file.first}; the public key in it is another than that of {key.path}"
        yield fail(f"{key.path} does not belong to {file.path}", evidence, expected.renewal)
    else:
        yield ok(f"{key.path} belongs to {file.path}")


def evaluate_permissions(observed: TlsObservation, expected: Expectations, now: datetime) -> Iterable[Verdict]:
    """Yield each private key that somebody else can read or replace."""
    keys = [(file, file.mode) for file in observed.files if file.key is not None and file.mode is not None]
    exposed = [(file, mode) for file, mode in keys if mode & (_OTHERS_MAY_READ | _OTHERS_MAY_WRITE)]
    for file, mode in exposed:
        may = "read" if mode & _OTHERS_MAY_READ else "replaced"
        by = "everybody" if mode & (_OTHERS_MAY_READ | 0o002) else "its group"
        job = f": in {expected.issuer_job}" if expected.issuer_job else ""
        yield warn(
            f"{file.path} can be {may} by {by} in its containers",
            f"mode {mode:o}, owner {file.owner}",
            f"chmod {mode & ~0o027:o} {file.path}, where it is written{job}",
            subject=file.path,
        )
    if not keys:
        yield skip("not judged", "no private key is to be seen")
    elif not exposed:
        yield ok("only those that should can read its key")


def evaluate_served(observed: TlsObservation, expected: Expectations, now: datetime) -> Iterable[Verdict]:
    """Yield whether the service presents what is in its file, or still what was there when it started."""
    file = in_use(observed, expected)
    presented = _presented(observed, expected)
    if file is None or presented is None or file.first is None:
        yield skip("not judged", "which file its certificate is from cannot be told" if presented else _NOTHING_SEEN)
    elif presented.fingerprint == file.first.fingerprint:
        yield ok(f"it serves {file.path}")
    else:
        see = f"see which one the configuration of {expected.service} names"
        yield warn(
            f"it serves another certificate than {file.path}",
            f"served on port {expected.port}: {presented}; {file.path}: {file.first}",
            f"{expected.restart} has it read its files again"
            if outdated(observed, expected)
            else f"it has started since the file was written: {see}",
        )


EVALUATORS: Mapping[str, Evaluator] = {
    "dates": evaluate_dates,
    "chain": evaluate_chain,
    "names": evaluate_names,
    "key": evaluate_key,
    "permissions": evaluate_permissions,
    "served": evaluate_served,
}


def evaluate(
    name: str, observed: TlsObservation, expected: Expectations, now: datetime, renew: Fix | None = None
) -> list[Verdict]:
    """Return the verdicts of one question, with the fix `renew` where it helps.

    It helps where the one-shot makes new files, or where good files are there and the service has yet to read them.
    """
    verdicts = list(EVALUATORS[name](observed, expected, now))
    # A certificate that ends soon, and a key that others can read, are only reported.
    if name != "served" and not any(verdict.status == "fail" for verdict in verdicts):
        return verdicts
    bad_files = broken(observed, expected, now)
    if not (expected.issuer_job is not None if bad_files else outdated(observed, expected)):
        return verdicts
    return [replace(each, fix=renew) if each.status in ("fail", "warn") else each for each in verdicts]


def broken(observed: TlsObservation, expected: Expectations, now: datetime) -> bool:
    """Return whether the files on disk are not good, whatever is presented."""
    file = in_use(observed, expected)
    if file is None:
        return False
    on_disk = TlsObservation(files=observed.files)
    expected = replace(expected, port=None, file=file.path)
    evaluators = (evaluate_dates, evaluate_chain, evaluate_names, evaluate_key)
    return any(each.status == "fail" for evaluator in evaluators for each in evaluator(on_disk, expected, now))


def outdated(observed: TlsObservation, expected: Expectations) -> bool:
    """Return whether a restart would have the service present another certificate: its file is newer than its start."""
    file = in_use(observed, expected)
    presented = _presented(observed, expected)
    if file is None or file.first is None or presented is None or presented.fingerprint == file.first.fingerprint:
        return False
    return bool(file.changed and expected.started and file.changed > expected.started.replace(microsecond=0))


def _chains(observed: TlsObservation, expected: Expectations) -> list[PresentedChain]:
    """Return the certificates to judge: that of the file in use, and those presented that are not the same."""
    file = in_use(observed, expected)
    found = [PresentedChain(file.path, file.certificates)] if file else []
    known = {each.leaf.fingerprint for each in found}
    names_of: dict[str, list[str]] = {}
    for each in observed.on(expected.port):
        names_of.setdefault(each.chain[0].fingerprint, []).append(each.name)

    def expected_names(fingerprint: str) -> tuple[str, ...]:
        return tuple(name for name in names_of.get(fingerprint, ()) if name in expected.names)

    for each in observed.on(expected.port):
        fingerprint = each.chain[0].fingerprint
        if fingerprint not in known:
            known.add(fingerprint)
            where = f"served on port {each.port}"
            found.append(PresentedChain(where, each.chain, expected_names(fingerprint)))
    if file and len(names_of) > 1:
        # One of several that are chosen by the name asked for: it answers for those that it is presented for.
        found[0] = replace(found[0], names=expected_names(found[0].leaf.fingerprint))
    return found


def _authorities(observed: TlsObservation, expected: Expectations) -> list[CertificateFile]:
    """Return the files of authorities that the server's certificate should be of."""
    trusted = [file for file in observed.files if file.path in expected.authorities and file.certificates]
    file = in_use(observed, expected)
    if trusted or file is None:
        return trusted
    return [
        other
        for other in observed.files
        if other.folder == file.folder
        and other.stem.lower() in _AUTHORITY_FILES
        and any(certificate.authority for certificate in other.certificates)
    ]


def _key_of(observed: TlsObservation, expected: Expectations, file: CertificateFile) -> CertificateFile | None:
    """Return the file with the key to a certificate: itself, or the only one that its place and name point to."""
    if file.key is not None:
        return file
    keys = [other for other in observed.files if other.key is not None]
    in_folder = [other for other in keys if other.folder == file.folder]
    same_stem = [other for other in in_folder if other.stem == file.stem]
    named = [other for other in keys if other.path in expected.named]
    return _the_only_one(same_stem, named, in_folder)
