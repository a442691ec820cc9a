"""What follows from the compose file, from facts alone."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from stackhand.engine.compose.parse import parse
from stackhand.perms.policy.mounts import PathFacts, uses
from stackhand.perms.policy.readers import ComposeRules, findings, known
from stackhand.perms.policy.rules import PathRule, Rules, Target
from stackhand.perms.policy.users import User, declared, shifted
from stackhand.settings import Perms

ROOT = Path("/p")
ME = 1000
SECRET = {"services": {"db": {"secrets": [{"source": "s"}]}}, "secrets": {"s": {"file": "/p/secrets/s.txt"}}}


def judge(document: dict, users: dict[str, User], **facts: PathFacts) -> ComposeRules:
    usual = Perms()
    rules = Rules(Target(ME, ME, "me", "me"), usual.roots, usual.secrets, usual.executable, (".env",))
    project = parse({"name": "p", **document}, ROOT)
    return known(project, ROOT, rules, users, {Path(path): found for path, found in facts.items()})


def file(uid: int, mode: int, gid: int | None = None, usual: int = 0o644) -> PathFacts:
    return PathFacts(uid, uid if gid is None else gid, stat.S_IFREG | mode, usual=usual)


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
    its_own = PathRule(data="db", uids=frozenset({999}), writes=not more)
    for owner in (0, ME):
        result = judge(mount("/p/docker/mq", target, **more), {"db": user(999)}, **{"/p/docker/mq": folder(owner)})
        assert result.special == {"docker": {"mq": PathRule(data="db") if data else its_own}}
    single = judge(mount("/p/docker/mq", target, **more), {"db": user(999)}, **{"/p/docker/mq": file(999, 0o600)})
    assert "db" in single.special["docker"]["mq"].leave


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


def test_a_volume_that_is_a_folder_and_what_is_taken_from_another_service_are_mounts_too() -> None:
    document = {
        "services": {
            "db": {"volumes": [{"type": "volume", "source": "far", "target": "/x"}]},
            "backup": {"volumes_from": ["db:ro", "container:other"]},
            "usual": {"volumes": [{"type": "volume", "source": "near", "target": "/x"}]},
        },
        "volumes": {"far": {"driver_opts": {"type": "none", "o": "bind,rw", "device": "/p/data"}}, "near": {}},
    }
    found = [(use.service, use.path, use.writes) for use in uses(parse({"name": "p", **document}, ROOT))]
    assert found == [("db", ROOT / "data", True), ("backup", ROOT / "data", False)]


def test_root_in_a_user_namespace_is_nobody_special() -> None:
    outside = shifted(declared({"user": "0:0"}, None), (100000, 100000))
    (finding,) = judge(CONFIG, {"db": outside}, **{"/p/config/app.conf": file(0, 0o600)}).findings
    assert finding.status == "warn"
    assert "uid 100000" in finding.summary
    result = judge(CONFIG, {"db": outside}, **{"/p/config/app.conf": file(100000, 0o600)})
    assert "uid 100000" in result.special["config"]["app.conf"].leave


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


def given(uid: int, gid: int) -> User:
    """Return the user of `user: "UID:GID"`."""
    return User(uid, frozenset({gid}), group=gid)


CONFIG = mount("/p/config/app.conf", "/etc/app.conf", read_only=True)


@pytest.mark.parametrize(
    ("reader", "now", "exception", "status"),
    [
        # Nobody else reads it: the rules of its folder keep it private.
        (user(0), file(0, 0o600), None, None),
        (user(ME), file(ME, 0o600), None, None),
        (user(ME), file(0, 0o600), None, "warn"),
        # Its reader gets the right to read by a group of its own, and nobody else does.
        (given(101, 102), file(0, 0o600), PathRule(mode=0o640, gid=102), "warn"),
        (given(101, 102), file(ME, 0o600), PathRule(mode=0o640, gid=102), "warn"),
        (given(101, 102), file(ME, 0o640, 102), PathRule(mode=0o640, gid=102), "ok"),
        (given(101, 102), file(0, 0o700, usual=0o755), PathRule(mode=0o750, gid=102), "warn"),
        # It is not known in which group it is: it stays closed, and that is a failure.
        (user(101), file(0, 0o600), None, "fail"),
        (User(None, name="app"), file(0, 0o600), None, "skip"),
        # By the group that it has without one: root's.
        (User(101, frozenset({0})), file(0, 0o640), PathRule(mode=0o640, gid=0), "ok"),
        # Others can read it: nothing to keep.
        (given(101, 102), file(0, 0o644), None, "ok"),
    ],
)
def test_a_private_file_that_another_user_reads(
    reader: User, now: PathFacts, exception: PathRule | None, status: str | None
) -> None:
    result = judge(CONFIG, {"db": reader}, **{"/p/config/app.conf": now})
    assert result.special == ({"config": {"app.conf": exception}} if exception else {})
    assert [each.status for each in result.findings] == ([status] if status else [])


@pytest.mark.parametrize(
    ("reader", "now", "says"),
    [
        # A keyfile, and a server's key that it takes from root only if its group alone may read it.
        (user(999), file(999, 0o400), "db runs as uid 999, which owns it"),
        (user(0, 999), file(999, 0o600), "db runs as uid 999, which owns it"),
        (user(0), file(0, 0o640, 999, usual=0o600), "group 999 reads it, others may not"),
        (given(999, 999), file(0, 0o640, 999, usual=0o600), "group 999 reads it, others may not"),
    ],
)
def test_a_private_file_that_is_its_readers_already_is_left_to_it(reader: User, now: PathFacts, says: str) -> None:
    for document in (CONFIG, mount("/p/config/app.conf", "/etc/app.conf")):
        result = judge(document, {"db": reader}, **{"/p/config/app.conf": now})
        assert says in result.special["config"]["app.conf"].leave
        assert "fail" not in [each.status for each in result.findings]
    config = {"services": {"db": {"configs": [{"source": "c"}]}}, "configs": {"c": {"file": "/p/config/app.conf"}}}
    rule = judge(config, {"db": reader}, **{"/p/config/app.conf": now}).special["config"]["app.conf"]
    assert rule.leave or rule == PathRule(mode=0o600, keep_owner=True)


def test_a_private_file_for_two_users_is_given_to_their_common_group_or_stays_closed() -> None:
    document = {"services": dict.fromkeys(("api", "db"), CONFIG["services"]["db"])}
    for users, rule in (
        ({"api": given(5, 7), "db": given(6, 7)}, PathRule(mode=0o640, gid=7)),
        ({"api": given(5, 5), "db": given(6, 6)}, None),
    ):
        result = judge(document, users, **{"/p/config/app.conf": file(0, 0o600)})
        assert result.special.get("config", {}).get("app.conf") == rule
        assert {each.status for each in result.findings} == ({"warn"} if rule else {"fail"})


def test_a_secret_is_given_to_the_group_of_its_reader_where_that_is_known() -> None:
    for path in ("/p/secrets/s.txt", "/p/token"):
        document = {"services": {"db": {"secrets": [{"source": "s"}]}}, "secrets": {"s": {"file": path}}}
        result = judge(document, {"db": given(999, 998)}, **{path: file(0, 0o600)})
        assert list(next(iter(result.special.values())).values()) == [PathRule(mode=0o640, gid=998)]
        assert [each.status for each in result.findings] == ["warn"]


def test_who_is_on_an_access_list_can_read() -> None:
    now = PathFacts(0, 0, stat.S_IFREG | 0o640, listed_uids=frozenset({101}))
    (finding,) = judge(CONFIG, {"db": user(101)}, **{"/p/config/app.conf": now}).findings
    assert (finding.status, finding.evidence.count("can be read")) == ("ok", 2)


@pytest.mark.parametrize(
    ("document", "path"),
    [
        (mount("/p/docker/backup", "/etc/cron.d/backup"), "/p/docker/backup"),
        (
            {
                "services": {"db": {"configs": [{"source": "c", "target": "/etc/logrotate.d/x"}]}},
                "configs": {"c": {"file": "/p/docker/backup"}},
            },
            "/p/docker/backup",
        ),
        (mount("/p/docker/backup", "/home/app/.ssh/authorized_keys"), "/p/docker/backup"),
    ],
)
def test_what_a_strict_program_reads_is_known_by_where_it_is_mounted(document: dict, path: str) -> None:
    result = judge(document, {"db": user(0)}, **{path: file(0, 0o644)})
    assert result.special["docker"]["backup"].strict
    assert result.findings == ()


def test_what_cron_refuses_now_is_told() -> None:
    document = mount("/p/docker/jobs", "/etc/cron.d")
    jobs = PathFacts(ME, ME, stat.S_IFDIR | 0o755, inner=(("backup", ME),))
    (finding,) = judge(document, {"db": user(0)}, **{"/p/docker/jobs": jobs}).findings
    assert (finding.id, finding.service, finding.status) == ("perms.strict", "db", "warn")
    assert finding.summary == "docker/jobs: cron in db refuses what root does not own"
    assert "docker/jobs/backup (uid 1000)" in finding.evidence
    assert "chown" in finding.remedy


def test_entries_of_all_who_mount_a_folder_or_one_above_stay_theirs() -> None:
    document = {
        "services": {
            "all": mount("/p", "/app")["services"]["db"],
            "db": mount("/p/docker/db", "/x", read_only=True)["services"]["db"],
        }
    }
    users = {"all": declared({"environment": {"PUID": "911"}}, "0"), "db": user(999)}
    result = judge(document, users, **{"/p": folder(ME), "/p/docker/db": folder(0)})
    assert result.special == {
        "docker": {"db": PathRule(data="all", uids=frozenset({0, 911, 999}))},
        "": {".": PathRule(data="all", uids=frozenset({0, 911}))},
    }


def test_a_folder_that_its_service_writes_to_by_its_group_is_left_to_it() -> None:
    shared = PathFacts(0, 998, stat.S_IFDIR | 0o2775)
    result = judge(mount("/p/docker/db", "/x"), {"db": given(999, 998)}, **{"/p/docker/db": shared})
    assert result.special["docker"]["db"].leave == "db keeps its data there as group 998"


def test_a_secret_folder_that_another_user_reads_is_left_to_it() -> None:
    result = judge(mount("/p/secrets", "/run/s", read_only=True), {"db": user(999)}, **{"/p/secrets": folder(0)})
    assert "db (uid 999)" in result.special[""]["secrets"].leave
    result = judge(mount("/p/secrets", "/run/s"), {"db": user(0)}, **{"/p/secrets": folder(0)})
    assert result.special == {"": {"secrets": PathRule(data="db", uids=frozenset({0}))}}


def test_paths_outside_are_findings_only() -> None:
    document = {"services": {"db": {"secrets": [{"source": "s"}]}}, "secrets": {"s": {"file": "/etc/s"}}}
    result = judge(document, {"db": user(999)}, **{"/etc/s": file(0, 0o600)})
    assert result.special == {}
    assert [each.status for each in result.findings] == ["fail"]
