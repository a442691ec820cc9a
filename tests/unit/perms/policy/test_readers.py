"""What follows from the compose file, from facts alone."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from stackhand.engine.compose.project import parse
from stackhand.perms.policy.readers import ComposeRules, PathFacts, User, findings, known, uses
from stackhand.perms.policy.rules import PathRule, Rules, Target
from stackhand.settings import Perms

ROOT = Path("/p")
ME = 1000
SECRET = {"services": {"db": {"secrets": [{"source": "s"}]}}, "secrets": {"s": {"file": "/p/secrets/s.txt"}}}


def judge(document: dict, users: dict[str, User], **facts: PathFacts) -> ComposeRules:
    usual = Perms()
    rules = Rules(Target(ME, ME, "me", "me"), usual.roots, usual.secrets, usual.executable, (".env",))
    project = parse({"name": "p", **document}, ROOT)
    return known(project, ROOT, rules, users, {Path(path): found for path, found in facts.items()})


def file(uid: int, mode: int) -> PathFacts:
    return PathFacts(uid, uid, stat.S_IFREG | mode)


def folder(uid: int, mode: int = 0o755, mark: str = "") -> PathFacts:
    return PathFacts(uid, uid, stat.S_IFDIR | mode, mark)


def user(uid: int, *running: int, name: str = "", powerful: bool = True) -> User:
    return User(uid, frozenset({uid}), name, frozenset(running), powerful)


@pytest.mark.parametrize(
    ("reader", "now", "exception", "status"),
    [
        # Root reads whatever the mode is.
        (user(0), file(0, 0o644), PathRule(mode=0o600), None),
        # Without that power it is a user as any other.
        (user(0, powerful=False), file(0, 0o600), PathRule(mode=0o644), "ok"),
        # The target user himself.
        (user(ME), file(ME, 0o600), PathRule(mode=0o600), None),
        # Somebody else: the folder keeps the machine's users out, the container gets the file alone.
        (user(999), file(0, 0o644), PathRule(mode=0o644), "ok"),
        (user(999), file(0, 0o600), PathRule(mode=0o644), "warn"),
        # The reader's own already: there is nothing more private that works.
        (user(999), file(999, 0o600), PathRule(mode=0o600, keep_owner=True), None),
        (User(None, name="app"), file(999, 0o600), PathRule(mode=0o600, keep_owner=True), "ok"),
        # Nothing is known about it.
        (User(), file(0, 0o644), PathRule(mode=0o600), "skip"),
    ],
)
def test_a_secret_in_the_secrets_folder(reader: User, now: PathFacts, exception: PathRule, status: str | None) -> None:
    result = judge(SECRET, {"db": reader}, **{"/p/secrets/s.txt": now})
    assert result.special == {"secrets": {"s.txt": exception}}
    assert [each.status for each in result.findings] == ([status] if status else [])


def test_a_finding_names_services_and_users_before_and_after() -> None:
    document = {**SECRET, "services": {name: {"secrets": [{"source": "s"}]} for name in ("api", "worker", "db")}}
    users = {"api": user(10001), "worker": user(10001), "db": user(0)}
    (finding,) = judge(document, users, **{"/p/secrets/s.txt": file(0, 0o600)}).findings
    assert finding.summary == "secrets/s.txt: api, worker read this secret as uid 10001"
    assert finding.evidence == (
        "before: owner 0:0, mode 600, can NOT be read; after: owner 1000:1000, mode 644, can be read"
    )


def test_two_readers_of_different_users_share_through_the_mode() -> None:
    document = {**SECRET, "services": {name: {"secrets": [{"source": "s"}]} for name in ("api", "db")}}
    result = judge(document, {"api": user(5), "db": user(6)}, **{"/p/secrets/s.txt": file(5, 0o600)})
    assert result.special == {"secrets": {"s.txt": PathRule(mode=0o644)}}
    assert [each.status for each in result.findings] == ["ok", "warn"]


def test_a_secret_outside_a_secret_folder_is_not_opened_to_everybody() -> None:
    document = {"services": {"db": {"secrets": [{"source": "s"}]}}, "secrets": {"s": {"file": "/p/token"}}}
    result = judge(document, {"db": user(999)}, **{"/p/token": file(0, 0o600)})
    assert result.special == {"": {"token": PathRule(mode=0o600)}}
    (finding,) = result.findings
    assert finding.status == "fail"
    assert "uid 999" in finding.summary
    assert finding.remedy
    # But what works is not broken.
    result = judge(document, {"db": user(999)}, **{"/p/token": file(0, 0o644)})
    assert result.special == {"": {"token": PathRule(mode=0o644)}}


def mount(source: str, target: str, **more: object) -> dict:
    return {"services": {"db": {"volumes": [{"type": "bind", "source": source, "target": target, **more}]}}}


@pytest.mark.parametrize(
    ("document", "reader", "now", "left"),
    [
        (mount("/p/docker/db", "/x"), user(0, 999), folder(999, 0o700), True),
        (mount("/p/docker/db", "/x"), user(999), folder(999, 0o700), True),
        (mount("/p/docker/db", "/x"), User(), folder(999, 0o700, "Postgres"), True),
        (mount("/p/docker/db", "/var/lib/postgresql/data"), User(), folder(70, 0o700), True),
        # A server that runs as the target user, or as root.
        (mount("/p/docker/db", "/x"), user(ME), folder(ME, 0o700, "Postgres"), True),
        (mount("/p/docker/db", "/x"), user(0), folder(0, 0o755, "Redis"), True),
        # Somebody else's source code is not a container's data.
        (mount("/p/docker/db", "/app"), user(0), folder(1001), False),
        (mount("/p/docker/db", "/app", read_only=True), user(1001), folder(1001), False),
        # Docker makes what is missing, as root.
        (mount("/p/docker/db", "/var/lib/postgresql/data"), user(0, 0), folder(0), False),
        (mount("/p/docker/db", "/var/lib/x"), user(0), folder(ME), False),
    ],
)
def test_data_folders_of_containers(document: dict, reader: User, now: PathFacts, left: bool) -> None:
    result = judge(document, {"db": reader}, **{"/p/docker/db": now})
    assert [True for each in result.special.get("docker", {}).values() if each.leave] == [True] * left
    if left:
        assert "db" in result.special["docker"]["db"].leave
        assert str(now.uid) in result.special["docker"]["db"].leave


@pytest.mark.parametrize(
    ("target", "more", "data"),
    [
        ("/var/lib/rabbitmq", {}, True),
        ("/data", {}, True),
        ("/data/", {}, True),
        ("/data/db", {}, True),
        ("/database", {}, False),
        ("/app", {}, False),
        ("/var/lib/rabbitmq", {"read_only": True}, False),
    ],
)
def test_what_a_container_makes_at_a_data_place_is_its_own(target: str, more: dict, data: bool) -> None:
    """Docker makes the folder itself, as root; so its owner tells nothing."""
    for owner in (0, ME):
        result = judge(mount("/p/docker/mq", target, **more), {"db": user(999)}, **{"/p/docker/mq": folder(owner)})
        assert result.special == ({"docker": {"mq": PathRule(data="db")}} if data else {})
    single = judge(mount("/p/docker/mq", target, **more), {"db": user(999)}, **{"/p/docker/mq": file(999, 0o600)})
    assert ("db" in single.special["docker"]["mq"].leave) if data else (single.special == {})


def test_links_are_followed_to_what_is_read(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "real/s.txt").symlink_to("token")
    (tmp_path / "real/token").touch()
    document = {
        "services": {
            "db": {
                "secrets": [{"source": "s"}],
                "volumes": [{"type": "bind", "source": f"{tmp_path}/link", "target": "/x"}],
            }
        },
        "secrets": {"s": {"file": f"{tmp_path}/link/s.txt"}},
    }
    found = [(use.what, use.path) for use in uses(parse({"name": "p", **document}, tmp_path))]
    assert found == [("secret", tmp_path / "real/token"), ("bind mount", tmp_path / "real")]


@pytest.mark.parametrize(
    ("path", "now", "status"),
    [
        # Of root's files it is not the owner, whatever its number.
        ("/p/token", file(0, 0o600), "skip"),
        ("/p/secrets/s.txt", file(0, 0o600), "warn"),
        # It may have the target user's number.
        ("/p/token", file(ME, 0o600), "skip"),
        # It was given to somebody, and who else would that be?
        ("/p/token", file(999, 0o600), "ok"),
        ("/p/token", file(0, 0o644), "ok"),
    ],
)
def test_a_user_of_whom_only_the_name_is_known(path: str, now: PathFacts, status: str) -> None:
    document = {"services": {"db": {"secrets": [{"source": "s"}]}}, "secrets": {"s": {"file": path}}}
    (finding,) = judge(document, {"db": User(None, name="app")}, **{path: now}).findings
    assert finding.status == status, finding
    assert ("NOT be read;" in finding.evidence) is (now.uid == 0 and now.mode & 0o777 == 0o600)


def test_nobody_but_root_reads_what_stays_roots() -> None:
    document = {"services": {"db": {"secrets": [{"source": "s"}]}}, "secrets": {"s": {"file": "/etc/s"}}}
    (finding,) = judge(document, {"db": User(None, name="app")}, **{"/etc/s": file(0, 0o600)}).findings
    assert (finding.status, finding.evidence.count("can NOT be read")) == ("fail", 2)


def test_after_a_fix_it_is_what_has_become_of_the_file_that_counts() -> None:
    project = parse({"name": "p", **SECRET}, ROOT)
    path, users = Path("/p/secrets/s.txt"), {"db": user(999)}
    target = Target(ME, ME, "me", "me")
    before = {path: file(0, 0o600)}
    for after, status in ((file(ME, 0o644), "warn"), (file(0, 0o600), "fail")):
        (finding,) = findings(project, ROOT, target, users, before, {path: after})
        assert finding.status == status
        assert f"after: owner {after.uid}:{after.gid}, mode {after.mode & 0o777:03o}" in finding.evidence
    assert findings(project, ROOT, target, users, before, {}) == ()


@pytest.mark.parametrize(("mode", "exception"), [(0o644, 0o644), (0o600, 0o600), (0o666, 0o644)])
def test_a_private_key_is_a_secret_however_it_is_mounted(mode: int, exception: int) -> None:
    key = PathFacts(0, 0, stat.S_IFREG | mode, usual=0o600)
    result = judge(mount("/p/app/tls.key", "/tls.key", read_only=True), {"db": user(999)}, **{"/p/app/tls.key": key})
    assert result.special == {"app": {"tls.key": PathRule(mode=exception)}}
    # Outside of the roots modes are as they are.
    assert judge(mount("/p/data/key", "/key"), {"db": user(999)}, **{"/p/data/key": key}).special == {}


def test_a_secret_folder_that_another_user_reads_is_left_to_it() -> None:
    result = judge(mount("/p/secrets", "/run/s", read_only=True), {"db": user(999)}, **{"/p/secrets": folder(0)})
    assert "db (uid 999)" in result.special[""]["secrets"].leave
    assert judge(mount("/p/secrets", "/run/s"), {"db": user(0)}, **{"/p/secrets": folder(0)}).special == {}


def test_paths_outside_are_findings_only() -> None:
    document = {"services": {"db": {"secrets": [{"source": "s"}]}}, "secrets": {"s": {"file": "/etc/s"}}}
    result = judge(document, {"db": user(999)}, **{"/etc/s": file(0, 0o600)})
    assert result.special == {}
    assert [each.status for each in result.findings] == ["fail"]
