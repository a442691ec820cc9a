"""The tasks of `perms`, run as people run them."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import Runner, clean_environment

UID = 4321


@pytest.fixture
def project() -> Iterator[Runner]:
    """A project of root's, in a folder that everybody may enter."""
    if os.geteuid() != 0:
        if os.environ.get("CI") == "true":
            pytest.fail("these tests are required here, and need root", pytrace=False)
        pytest.skip("THESE TESTS NEED ROOT")
    path = Path(tempfile.mkdtemp(prefix="stackhand-perms-"))
    path.chmod(0o755)
    (path / "compose.yaml").write_text("services: {}\n")
    for name in ("app/a.py", "scripts/go.sh", "secrets/s.txt"):
        (path / name).parent.mkdir()
        (path / name).write_text("x")
        (path / name).chmod(0o666)
    runner = Runner(path, clean_environment(SUDO_USER=None))
    yield runner
    runner.close()
    shutil.rmtree(path)


def mode(path: Path) -> tuple[int, int]:
    seen = path.lstat()
    return seen.st_uid, seen.st_mode & 0o7777


def everything(path: Path) -> dict[str, tuple[int, int]]:
    found = {str(each.relative_to(path)): mode(each) for each in path.rglob("*")}
    return {name: now for name, now in found.items() if not name.startswith(".stackhand")}


def test_check_fix_check_undo(project: Runner) -> None:
    owner = ("--owner", f"{UID}:{UID}")
    before = everything(project.directory)
    checked = project.inv("perms.check", *owner)
    assert checked.code == 1
    assert "app/a.py: owner 0:0, not 4321:4321; mode 666, not 644" in checked.stdout
    assert checked.stderr.splitlines()[-1] == f"hint: `inv perms.fix --owner {UID}:{UID}` puts it right"
    dry = project.inv("--dry", "perms.fix", *owner)
    assert (dry.code, everything(project.directory)) == (0, before)
    planned = {
        line.partition(":")[0].removeprefix("would fix ") for line in dry.stdout.splitlines() if "would fix " in line
    }
    fixed = project.inv("perms.fix", *owner, "--json")
    assert fixed.code == 0, fixed
    document = fixed.json()
    assert document["changed"] == document["wrong"] == len(planned - {"8 of 8 entries"}) == 8
    assert {"root", "owner", "group", "scanned", "unchanged", "refused", "failed", "journal"} <= set(document)
    assert document["root"] == str(project.directory)
    assert mode(project.directory / "scripts/go.sh") == (UID, 0o755)
    assert mode(project.directory / "secrets/s.txt") == (UID, 0o600)
    assert project.inv("perms.check", *owner).code == 0
    again = project.inv("perms.fix", *owner, "--json").json()
    assert (again["changed"], again["journal"]) == (0, None)
    assert project.inv("--dry", "perms.undo").stdout.startswith("would put back 8 entries")
    undone = project.inv("perms.undo", document["journal"])
    assert undone.code == 0, undone
    assert everything(project.directory) == before
    assert "nothing to undo" in project.inv("perms.undo").stdout


def test_json_has_all_of_what_is_wrong(project: Runner) -> None:
    for number in range(60):
        (project.directory / f"app/{number}").touch(0o600)
    plain = project.inv("perms.check", "--owner", str(UID))
    assert plain.stdout.count("app/") == 50 - 3
    assert "… and more" in plain.stdout or "and more" in plain.stdout
    entries = project.inv("perms.check", "--owner", str(UID), "--json").json()["entries"]
    assert len([each for each in entries if each["path"].startswith("app/")]) == 61


def test_names_are_printed_on_one_line(project: Runner) -> None:
    (project.directory / "app/a\nb\x1b[31m").touch()
    (project.directory / os.fsdecode(b"app/\xff")).touch()
    lines = project.inv("perms.check", "--owner", str(UID)).stdout
    assert r"app/a\nb\x1b[31m: owner" in lines
    assert r"app/\udcff: owner" in lines


def test_names_are_printed_without_control_characters_everywhere(project: Runner) -> None:
    name = "\x1b[31m"
    (project.directory / f"scripts/{name}.sh").write_text("x")
    (project.directory / f"{name}.env").touch(0o600)
    for words in (["perms.check"], ["--dry", "perms.fix"], ["perms.fix"]):
        result = project.inv(*words, "--owner", str(UID))
        assert name not in result.stdout + result.stderr, result
        assert r"\x1b[31m.env: closed to others before" in result.stdout
    assert r"./scripts/\x1b[31m.sh" in result.stdout


def test_the_hint_promises_only_what_a_fix_does(project: Runner) -> None:
    owner = ("--owner", f"{UID}:{UID}")
    twice = project.directory / "app/a.py"
    os.link(twice, project.directory / "data")
    some = project.inv("perms.check", *owner)
    assert some.stderr.splitlines()[-2:] == [
        f"error: 9 entries are wrong in {project.directory}",
        f"hint: `inv perms.fix --owner {UID}:{UID}` puts 7 of them right; each is named above, with the reason",
    ]
    fixed = project.inv("perms.fix", *owner)
    assert fixed.code == 1
    (project.directory / "data").unlink()
    os.link(twice, project.directory / "app/b.py")
    none = project.inv("perms.check", *owner)
    assert none.stderr.splitlines()[-1] == "hint: each is named above, with the reason"
    (project.directory / "app/b.py").unlink()
    one = project.inv("perms.check", *owner)
    assert f"error: 1 entry is wrong in {project.directory}" in one.stderr
    assert one.stderr.splitlines()[-1] == f"hint: `inv perms.fix --owner {UID}:{UID}` puts it right"


def test_what_git_could_not_be_asked_is_told(project: Runner) -> None:
    (project.directory / ".git").mkdir()
    tool = project.directory / "app/tool"
    tool.write_text("text")
    tool.chmod(0o755)
    result = project.inv("perms.fix", "--owner", str(UID), "--json")
    assert result.code == 0, result
    assert [(each["id"], each["status"]) for each in result.json()["findings"]] == [("perms.git", "skip")]
    assert mode(tool) == (UID, 0o755)


def test_without_root_the_plan_says_what_needs_root(project: Runner) -> None:
    os.chown(project.directory, UID, UID)
    mine = project.directory / "app/mine.sh"
    mine.touch(0o600)
    for path in (mine, mine.parent):
        os.chown(path, UID, UID)
    user = ["setpriv", f"--reuid={UID}", f"--regid={UID}", "--clear-groups"]
    if subprocess.run([*user, sys.executable, "-c", "import stackhand"], env=project.env, check=False).returncode:
        pytest.skip("an ordinary user can't run this Python")
    dry = project.inv("--dry", "perms.fix", prefix=user, env={"HOME": str(project.directory)})
    assert "would not fix app/a.py: needs root: owner 0:0" in dry.stdout
    assert "would fix app/mine.sh: mode 600, not 755" in dry.stdout
    assert re.search(r"^would fix 1 of \d+ entries; 6 need root$", dry.stdout, re.MULTILINE), dry


def test_what_can_not_be_looked_at_is_listed(project: Runner) -> None:
    os.chown(project.directory, UID, UID)
    shutil.rmtree(project.directory / "scripts")
    shutil.rmtree(project.directory / "secrets")
    (project.directory / "app/a.py").unlink()
    for path in (project.directory / "app", project.directory / "compose.yaml"):
        os.chown(path, UID, UID)
    closed = project.directory / "data"
    closed.mkdir(0o744)
    (closed / "roots").touch()
    os.chown(closed, 999, 999)
    closed.chmod(0o744)
    user = ["setpriv", f"--reuid={UID}", f"--regid={UID}", "--clear-groups"]
    if subprocess.run([*user, sys.executable, "-c", "import stackhand"], env=project.env, check=False).returncode:
        pytest.skip("an ordinary user can't run this Python")
    home = {"HOME": str(project.directory)}
    for words in (["perms.check"], ["--dry", "perms.fix"], ["perms.fix"]):
        result = project.inv(*words, prefix=user, env=home)
        assert "data/roots: Permission denied" in result.stdout, result
        assert "all right" not in result.stdout
        assert result.code == (0 if "--dry" in words else 1)


def test_without_root_it_says_which_command_does_the_rest_and_that_does_it(project: Runner) -> None:
    (project.directory / "tasks.py").write_text("from stackhand import ns\n")
    os.chown(project.directory, UID, UID)
    mine = project.directory / "app/mine.sh"
    mine.touch(0o600)
    for path in (mine, mine.parent):
        os.chown(path, UID, UID)
    user = ["setpriv", f"--reuid={UID}", f"--regid={UID}", "--clear-groups"]
    if subprocess.run([*user, sys.executable, "-c", "import stackhand"], env=project.env, check=False).returncode:
        pytest.skip("an ordinary user can't run this Python")
    home = {"HOME": str(project.directory)}
    result = project.inv("perms.fix", prefix=user, env=home)
    assert result.code == 1
    assert mode(mine) == (UID, 0o755), result
    hint = next(line for line in result.stderr.splitlines() if line.startswith("hint: "))
    command = shlex.split(hint.split("`")[1])
    assert command[0] == "sudo"
    subprocess.run(command[1:], cwd=project.directory, env=project.env, check=True, capture_output=True)
    assert project.inv("perms.check", prefix=user, env=home).code == 0
    assert mode(project.directory / "secrets/s.txt") == (UID, 0o600)


def test_a_compose_file_that_is_broken_is_no_obstacle(project: Runner) -> None:
    (project.directory / "compose.yaml").write_text("services: [")
    result = project.inv("perms.fix", "--owner", str(UID), "--json")
    assert result.code == 0, result
    assert [(each["id"], each["status"]) for each in result.json()["findings"]] == [("perms.compose", "skip")]
    assert mode(project.directory / "app/a.py") == (UID, 0o644)


def test_nor_is_a_machine_without_docker(project: Runner) -> None:
    result = project.inv("perms.fix", "--owner", str(UID), "--json", env={"PATH": str(Path(sys.executable).parent)})
    assert result.code == 0, result
    assert result.json()["findings"][0]["status"] == "skip"


def test_sudo_user_is_the_target(project: Runner) -> None:
    document = project.inv("perms.check", "--json", env={"SUDO_USER": "nobody"}).json()
    assert document["owner"] == "nobody"


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["perms.fix", "--owner", "no-such-user"], 2, "there is no user 'no-such-user'"),
        (["perms.fix", "--owner", "root:no-such-group"], 2, "there is no group 'no-such-group'"),
        (["perms.fix", "--owner", ":x"], 2, "--owner takes user or user:group"),
        (["perms.fix", "--owner", "dameon"], 2, "did you mean 'daemon'?"),
        (["perms.fix", "--owner", "root:dameon"], 2, "did you mean 'daemon'?"),
        (["perms.check", "--owner", "4294967296"], 2, "4294967296 is no user or group"),
        (["perms.check", "--owner", "4294967295:1"], 2, "4294967295 is no user or group"),
        (["perms.check", "--owner", "1:" + "9" * 5000], 2, "is no user or group"),
        (["perms.fix", "--volume", "v", "--owner", "root"], 2, "--owner takes numbers"),
        (["perms.fix", "--volume", "v", "--owner", "1:4294967295"], 2, "4294967295 is no user or group"),
        (["perms.undo", "--id", "20010101-000000"], 2, "there is no run '20010101-000000'"),
        (["perms.undo", "20010101-000000"], 2, "there is no run '20010101-000000'"),
    ],
)
def test_mistakes_are_told(project: Runner, words: list[str], code: int, says: str) -> None:
    result = project.inv(*words)
    assert result.code == code, result
    assert says in result.stderr


@pytest.mark.parametrize("what", ["folder", "lock", "hard link", "memory"])
def test_a_state_folder_that_was_tampered_with_leads_nowhere(project: Runner, tmp_path: Path, what: str) -> None:
    """A container that can write to the project must not get root to write elsewhere."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_text("precious")
    state = project.directory / ".stackhand"
    if what == "folder":
        state.symlink_to(outside)
    else:
        state.mkdir()
        if what == "lock":
            (state / "lock").symlink_to(outside / "file")
        elif what == "hard link":
            precious = project.directory / "precious"
            precious.write_text("precious")
            os.link(precious, state / "lock")
        else:
            (state / "perms.json").symlink_to(outside / "file")
            (state / "perms").symlink_to(outside)
    result = project.inv("perms.fix", "--owner", str(UID))
    assert (result.code == 3) or what == "memory", result
    assert (outside / "file").read_text() == "precious"
    assert mode(outside)[0] == mode(outside / "file")[0] == 0
    assert [each.name for each in outside.iterdir()] == ["file"]
    if what == "hard link":
        assert precious.read_text() == "precious"
