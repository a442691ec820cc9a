"""The tasks of `perms`, run as people run them."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import Result, Runner, clean_environment

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
    (project.directory / f"app/{name}.d/cron.d").mkdir(parents=True)
    for words in (["perms.check"], ["--dry", "perms.fix"], ["perms.fix"]):
        result = project.inv(*words, "--owner", str(UID))
        assert name not in result.stdout + result.stderr, result
        assert r"app/\x1b[31m.d/cron.d: cron refuses files" in result.stdout
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
    mine.touch(0o644)
    for path in (mine, mine.parent):
        os.chown(path, UID, UID)
    user = ["setpriv", f"--reuid={UID}", f"--regid={UID}", "--clear-groups"]
    if subprocess.run([*user, sys.executable, "-c", "import stackhand"], env=project.env, check=False).returncode:
        pytest.skip("an ordinary user can't run this Python")
    dry = project.inv("--dry", "perms.fix", prefix=user, env={"HOME": str(project.directory)})
    assert "would not fix app/a.py: needs root: owner 0:0" in dry.stdout
    assert "would fix app/mine.sh: mode 644, not 755" in dry.stdout
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
    mine.touch(0o644)
    for path in (mine, mine.parent):
        os.chown(path, UID, UID)
    user = user_of(project)
    result = project.inv("perms.fix", prefix=user)
    assert result.code == 1
    assert mode(mine) == (UID, 0o755), result
    hint = next(line for line in result.stderr.splitlines() if line.startswith("hint: "))
    command = shlex.split(hint.split("`")[1])
    assert command[0] == "sudo"
    subprocess.run(command[1:], cwd=project.directory, env=project.env, check=True, capture_output=True)
    assert project.inv("perms.check", prefix=user).code == 0
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
        (["perms.undo", "2001"], 2, "there is no run '2001'"),
        (["perms.undo", "bogus"], 2, "bogus"),
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
    result = project.inv("perms.fix", "--owner", str(UID))
    assert (result.code == 3) or what == "memory", result
    assert (outside / "file").read_text() == "precious"
    assert mode(outside)[0] == mode(outside / "file")[0] == 0
    assert [each.name for each in outside.iterdir()] == ["file"]
    if what == "hard link":
        assert precious.read_text() == "precious"


def test_a_dry_undo_of_a_project_without_runs_makes_nothing(project: Runner) -> None:
    before = everything(project.directory)
    result = project.inv("--dry", "perms.undo")
    assert (result.code, result.stdout) == (0, "nothing to undo: no run of perms.fix has changed anything\n")
    assert not (project.directory / ".stackhand/lock").exists()
    assert everything(project.directory) == before
    assert list(Path(os.environ["STACKHAND_STATE"]).iterdir()) == []


def test_once_all_is_undone_that_is_said(project: Runner) -> None:
    assert project.inv("perms.fix", "--owner", str(UID)).code == 0
    assert project.inv("perms.undo").code == 0
    assert project.inv("perms.undo").stdout == "nothing to undo: all runs were undone\n"


def test_a_reader_that_has_seen_enough_is_no_failure(project: Runner) -> None:
    for number in range(3000):
        (project.directory / f"app/{number}").touch(0o600)
    program = [sys.executable, "-c", "from stackhand.cli.program import main; main()"]
    words = shlex.join([*program, "perms.check", "--owner", str(UID), "--json"])
    done = subprocess.run(
        ["bash", "-c", f"{words} | head -c 100; exit ${{PIPESTATUS[0]}}"],
        cwd=project.directory,
        env=project.env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, len(done.stdout)) == (1, 100)
    assert "BrokenPipe" not in done.stderr


def user_of(project: Runner) -> list[str]:
    """Return what runs a program as an ordinary user."""
    user = ["env", f"HOME={project.directory}", "setpriv", f"--reuid={UID}", f"--regid={UID}", "--clear-groups"]
    if subprocess.run([*user, sys.executable, "-c", "import stackhand"], env=project.env, check=False).returncode:
        pytest.skip("an ordinary user can't run this Python")
    return user


def test_what_root_did_an_ordinary_user_is_told_to_leave_to_root(project: Runner) -> None:
    id = project.inv("perms.fix", "--owner", str(UID), "--json").json()["journal"]
    for words, again in (("perms.undo",), "perms.undo`"), (("perms.undo", id), f"perms.undo {id}`"):
        result = project.inv(*words, prefix=user_of(project))
        assert result.code == 3, result
        assert "root has changed files here" in result.stderr
        assert "hint: only root can undo that: `sudo " in result.stderr
        assert again in result.stderr
    assert project.inv("perms.undo").code == 0


def test_where_a_user_may_not_write_to_the_project_he_still_fixes_what_is_his(project: Runner) -> None:
    user = user_of(project)
    mine = project.directory / "app/a.py"
    os.chown(mine, UID, UID)
    before = everything(project.directory)
    fixed = project.inv("perms.fix", "--json", prefix=user)
    assert fixed.code == 1  # the rest is root's
    assert mode(mine) == (UID, 0o644)
    assert project.inv("perms.undo", fixed.json()["journal"], prefix=user).code == 0
    assert everything(project.directory) == before


def test_after_ctrl_c_it_is_told_what_was_done_and_how_to_put_it_back(project: Runner) -> None:
    for number in range(20_000):
        (project.directory / f"app/{number % 100}").mkdir(exist_ok=True)
        (project.directory / f"app/{number % 100}/{number}").touch(0o600)
    before = everything(project.directory)
    owner = ("--owner", f"{UID}:{UID}")
    state = Path(os.environ["STACKHAND_STATE"])

    def interrupted(*words: str) -> Result:
        known = set(state.rglob("*.jsonl"))
        running = project.start_inv(*words)
        deadline = time.monotonic() + 60
        while not any(each.stat().st_size > 20_000 for each in set(state.rglob("*.jsonl")) - known):
            assert running.process.poll() is None and time.monotonic() < deadline, running.stderr
        running.signal(signal.SIGINT)
        return running.wait()

    result = interrupted("perms.fix", *owner, "--json")
    assert result.code == 130, result
    document = result.json()
    changed = [name for name, now in everything(project.directory).items() if now != before[name]]
    assert document["changed"] in (len(changed), len(changed) + 1)  # the project's folder itself
    assert (document["ok"], document["error"]["exit_code"]) == (False, 130)
    assert document["journal"]
    assert project.inv("perms.undo", document["journal"]).code == 0
    assert everything(project.directory) == before
    result = interrupted("perms.fix", *owner)
    assert result.code == 130, result
    assert "to put it back: inv perms.undo " in result.stdout
    assert "error: interrupted" in result.stderr
    assert project.inv("perms.fix", *owner).code == 0
    result = interrupted("perms.undo", "--json")
    assert (result.code, result.json()["ok"]) == (130, False)
    assert result.json()["restored"]
    for _ in range(2):
        assert project.inv("perms.undo").code == 0
    assert everything(project.directory) == before


def test_a_full_disk_is_told_with_what_was_done(project: Runner, tmp_path: Path) -> None:
    for number in range(3000):
        (project.directory / f"app/{number}").touch(0o600)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=32k", "none", tmp_path], check=True)
    try:
        result = project.inv("perms.fix", "--owner", str(UID), "--json", env={"STACKHAND_STATE": str(tmp_path)})
    finally:
        subprocess.run(["umount", tmp_path], check=True)
    assert result.code == 1, result
    document = result.json()
    assert document["journal"]
    assert 0 < document["changed"] < 3000
    assert "No space left on device" in document["error"]["message"]
    assert "error: the journal can't be written: No space left on device" in result.stderr
