"""`perms.fix` against what people do by hand: `chown -R` and three times `find … -exec chmod … {} +`.

200,000 small files, all with a wrong owner and a wrong mode; then once more with nothing wrong. The old style,
one `chmod` for each file (`-exec … \\;`), is measured on 5,000 files and compared by the time for one file. Memory is
that of a fix of one million files. Needs root, as the job itself does. The journal is written, of course.
"""

from __future__ import annotations

import json
import os
import shlex
from pathlib import Path

from common import Bound, InvalidRunError, Options, Report, environment, folder, main, measure, say

FILES, FEW, MANY = 200_000, 5_000, 1_000_000
UID = GID = 4321
TOPS = ("app", "config", "docker", "docs", "logs", "scripts", "secrets")
TUNED = (
    "chown -R {uid}:{gid} . && find . -type d -exec chmod 755 {{}} + && find . -type f -exec chmod 644 {{}} +"
    " && find . -name '*.sh' -exec chmod 755 {{}} +"
)
EACH = TUNED.replace(" +", " \\;")
HAND, HAND_AGAIN = "chown -R, three find + chmod", "the same, nothing wrong"
FIX, AGAIN = "perms.fix", "perms.fix, nothing wrong"
PER_FILE = "one chmod for each of 5,000 files"


def compare(options: Options) -> Report:
    """Repair the same tree with both sides, in turns."""
    if os.geteuid() != 0:
        raise InvalidRunError("this comparison changes owners, which takes root")
    report = Report(f"permissions of {FILES:,} files, all wrong")
    with folder() as place:
        tree, few = _make(place / "tree", FILES), _make(place / "few", FEW)
        for _ in range(options.runs):
            for row in (HAND, HAND_AGAIN):
                if row == HAND:
                    _break(tree)
                report.add(row, _by_hand(tree, TUNED))
            _break(tree)
            report.add(FIX, _fix(tree, options, changes=True))
            report.add(AGAIN, _fix(tree, options, changes=False))
            _break(few)
            report.add(PER_FILE, _by_hand(few, EACH))
        _remove(tree)
        many = _make(place / "many", MANY)
        _break(many)
        memory = _memory(many, options)
        _remove(many)
    each = report.median(FIX) / FILES
    report.bounds = [
        Bound("first fix / by hand", report.median(FIX) / report.median(HAND), 0.9),
        Bound("second fix / by hand", report.median(AGAIN) / report.median(HAND_AGAIN), 0.3),
        Bound(
            "time for a file / with one chmod for each", 100 * each / (report.median(PER_FILE) / FEW), 100 / 80, " %"
        ),
        Bound(f"memory with {MANY:,} files", memory, 200, " MB"),
    ]
    report.notes.append(f"times faster than one chmod for each file: {report.median(PER_FILE) / FEW / each:.0f}")
    return report


def _make(root: Path, files: int) -> Path:
    say(f"  making {files:,} files")
    root.mkdir()
    (root / "compose.yaml").write_text("services:\n  app:\n    image: busybox\n")
    for number in range(files):
        group, index = divmod(number, 40)
        if index == 0:
            inner = root / TOPS[group % len(TOPS)] / f"part-{group // 140}" / f"folder-{group}"
            inner.mkdir(parents=True)
        descriptor = os.open(
            inner / f"{'run' if index % 20 else 'start'}-{index}{_suffix(index)}", os.O_CREAT | os.O_WRONLY
        )
        os.write(descriptor, b"value = 1\n")
        os.close(descriptor)
    return root


def _suffix(index: int) -> str:
    return ".sh" if index % 20 == 0 else ".py"


def _break(tree: Path) -> None:
    _shell(tree, "chown -R 0:0 . && find . -type d -exec chmod 777 {} + && find . -type f -exec chmod 666 {} +")


def _by_hand(tree: Path, pipeline: str) -> float:
    command = pipeline.format(uid=UID, gid=GID)
    seconds = _shell(tree, command, quiet=True)
    _require(tree)
    say(f"  {shlex.quote(command[:40])}…: {seconds:.2f} s")
    return seconds


def _fix(tree: Path, options: Options, *, changes: bool) -> float:
    argv = [*options.stackhand, "perms.fix", "--owner", f"{UID}:{GID}", "--json"]
    done = measure(argv, tree, _environment(tree))
    if done.code:
        raise InvalidRunError(f"`{shlex.join(argv)}` ended with {done.code}: {done.stderr.strip()[-500:]}")
    document = json.loads(done.stdout)
    if bool(document["changed"]) is not changes or bool(document["journal"]) is not changes:
        raise InvalidRunError(f"it changed {document['changed']} files, and its journal is {document['journal']}")
    _require(tree)
    say(f"  perms.fix: {done.seconds:.2f} s")
    return done.seconds


def _environment(tree: Path) -> dict[str, str]:
    """Return the environment of a fix: its journals go with the tree."""
    return environment(STACKHAND_STATE=str(tree.parent / "state"))


def _memory(tree: Path, options: Options) -> float:
    argv = [*options.stackhand, "perms.fix", "--owner", f"{UID}:{GID}", "--json"]
    done = measure(argv, tree, _environment(tree), memory=True, quiet=False)
    if done.code or json.loads(done.stdout)["changed"] < MANY:
        raise InvalidRunError(f"`{shlex.join(argv)}` ended with {done.code}: {done.stderr.strip()[-500:]}")
    say(f"  {MANY:,} files: {done.seconds:.1f} s, {done.memory.family:.0f} MB")
    return done.memory.family


def _require(tree: Path) -> None:
    """Look at some files: the job has to be done, whoever did it."""
    for top in TOPS:
        inner = next(next((tree / top).iterdir()).iterdir())
        for path in inner.iterdir():
            seen = path.stat()
            private = 0o600 if top == "secrets" else 0o755 if path.suffix == ".sh" else 0o644
            allowed = {private, 0o755 if path.suffix == ".sh" else 0o644}
            if seen.st_uid != UID or seen.st_mode & 0o777 not in allowed:
                raise InvalidRunError(f"{path} was not put right")


def _remove(tree: Path) -> None:
    _shell(tree.parent, f"rm -rf {shlex.quote(tree.name)}")


def _shell(place: Path, command: str, *, quiet: bool = False) -> float:
    done = measure(["sh", "-c", command], place, environment(), quiet=quiet)
    if done.code:
        raise InvalidRunError(f"`{command}` failed: {done.stderr.strip()[-500:]}")
    return done.seconds


if __name__ == "__main__":
    main(compare, runs=3)
