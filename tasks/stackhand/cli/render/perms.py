"""Prints the results of the tasks of the namespace `perms`."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from typing import TYPE_CHECKING

from stackhand.context import Stack

if TYPE_CHECKING:
    from stackhand.perms.policy.rules import Target
    from stackhand.perms.result import Result
    from stackhand.perms.undo import UndoResult

_SHOWN = 50


def print_result(
    stack: Stack, result: Result, *, json: bool, intro: str, show: Callable[[Stack, Result], None]
) -> None:
    """Print a result: as one JSON document, or as `intro`, what `show` prints, and the findings.

    Raises the error that ended the run early, once the result is printed.
    """
    if json:
        stack.console.document_of_many({**result.head(), **({"dry": True} if stack.dry else {})}, result.lists())
        _raise_early_end(result)
        return
    target = result.target
    root = f"{'project root' if result.root == stack.state.path.parent else 'its folder'}:"
    stack.console.result(
        f"{intro}\n  target user:  {target.user}\n  target group: {target.group}\n  {root:13} {result.root}"
    )
    show(stack, result)
    for finding in result.findings:
        sign = stack.console.symbol(finding.status, stack.console.stdout)
        # Names of files are in all of it.
        remedy = f"\n    remedy: {printable(finding.remedy)}" if finding.remedy else ""
        stack.console.result(f"{sign} {printable(finding.summary)}\n    {printable(finding.evidence)}{remedy}")
    _raise_early_end(result)


def _raise_early_end(result: Result) -> None:
    """Raise the error that ended a run early, if one did."""
    if result.stopped is not None:
        raise result.stopped


def show_check(stack: Stack, result: Result) -> None:
    """Print what a check has found."""
    _list(stack, result, "wrong", most=_SHOWN)
    _list(stack, result, "failed", most=_SHOWN)
    _rest(stack, result)
    counts = result.counts
    if counts.wrong:
        what = f"{counts.wrong:,} of {_entries(counts.scanned)} {_are(counts.wrong)} wrong"
    else:
        what = f"{_entries(counts.scanned)}, {'no other is wrong' if counts.failed else 'all right'}"
    stack.console.result(what)


def show_dry(stack: Stack, result: Result) -> None:
    """Print what a fix would do."""
    from stackhand.perms.tree.evaluate import NEEDS_ROOT

    for event in result.events.read("wrong"):
        sign = "would not fix" if event.reason.startswith(NEEDS_ROOT) else "would fix"
        stack.console.result(f"{sign} {printable(event.path)}: {event.reason}")
    _list(stack, result, "failed", most=_SHOWN)
    _rest(stack, result)
    counts = result.counts
    would = _fixable(result)
    if would or counts.wrong or counts.failed:
        rest = (
            f"; {counts.needs_root:,} {'needs' if counts.needs_root == 1 else 'need'} root" if counts.needs_root else ""
        )
        stack.console.result(f"would fix {would:,} of {_entries(counts.scanned)}{rest}")
    else:
        stack.console.result("nothing to do")


def show_fix(stack: Stack, result: Result) -> None:
    """Print what a fix has done, and what is left."""
    console, counts = stack.console, result.counts
    for top, (_, wrong, changed) in sorted(counts.by_top_folder.items(), key=lambda item: (not item[0], item[0])):
        if wrong:
            sign = console.symbol("ok" if wrong == changed else "warn", console.stdout)
            console.result(f"{sign} {printable(top) or 'the rest of the project'}: {changed:,} of {wrong:,} fixed")
    # Entries that are only named as wrong: without a journal nothing was changed.
    _list(stack, result, "wrong", most=_SHOWN)
    _list(stack, result, "failed", most=_SHOWN)
    _rest(stack, result)
    if result.journal:
        in_part = f", {counts.partial:,} in part" if counts.partial else ""
        console.result(f"{counts.changed:,} of {_entries(counts.scanned)} changed{in_part}")
        console.result(f"to put it back: inv perms.undo {result.journal}")
    elif not (counts.wrong or counts.failed or result.stopped):
        console.result(f"nothing to do: {_entries(counts.scanned)}, all right")
    if result.ok:
        _epilogue(stack, result)


def show_volume(stack: Stack, result: Result) -> None:
    """Print what a fix of a volume has done."""
    _list(stack, result, "failed", most=_SHOWN)
    _rest(stack, result)
    counts = result.counts
    stack.console.result(f"{counts.changed:,} of {_entries(counts.scanned)} changed")
    if result.journal:
        stack.console.result(f"to put it back: inv perms.undo {result.journal}")


def _epilogue(stack: Stack, result: Result) -> None:
    from stackhand.perms.policy.owner import docker_group_missing

    scripts = [f"./{name}" for name in ("run.sh",) if (result.root / name).is_file()]
    scripts += [f"./scripts/{each.name}" for each in sorted((result.root / "scripts").glob("*.sh"))[:3]]
    if scripts:
        stack.console.result(f"{result.target.user} can run the scripts without sudo now:")
        stack.console.result("\n".join(f"  {printable(each)}" for each in scripts))
    group = docker_group_missing(result.target.user)
    if group:
        stack.console.result(
            f"{result.target.user} is not in the group {group}, so docker needs sudo: "
            f"sudo usermod -aG {group} {result.target.user}, then log in again"
        )


def show_undo(stack: Stack, result: UndoResult, *, json: bool) -> None:
    """Print what an undo has put back."""
    if json:
        events = result.events
        stack.console.document_of_many(
            {**result.head(), **({"dry": True} if stack.dry else {})},
            {
                "left_alone": ({"path": each.path, "reason": each.reason} for each in events.read("left")),
                "failed": ({"path": each.path, "error": each.reason} for each in events.read("failed")),
            },
        )
        return
    if result.id is None:
        why = "all runs were undone" if result.any_runs else "no run of perms.fix has changed anything"
        stack.console.result(f"nothing to undo: {why}")
        return
    for number, event in enumerate(result.events.read("left", "failed")):
        if number == _SHOWN:
            stack.console.result("    … and more; --json has all")
            break
        sign = stack.console.symbol("skip" if event.kind == "left" else "fail", stack.console.stdout)
        stack.console.result(f"{sign} {printable(event.path)}: {event.reason}")
    would = "would put back" if stack.dry else "put back:"
    stack.console.result(f"{would} {result.restored:,} entries of run {result.id}; left as they are: {result.left:,}")
    if result.stopped is not None:
        stack.console.result("the next perms.undo goes on with it")


def _rest(stack: Stack, result: Result) -> None:
    _list(stack, result, "refused", most=_SHOWN)
    _list(stack, result, "left", most=_SHOWN)


def _list(stack: Stack, result: Result, kind: str, most: int) -> None:
    words = {
        "wrong": ("warn", ""),
        "failed": ("fail", ""),
        "refused": ("fail", "refused: "),
        "left": ("skip", "left alone: "),
    }
    status, word = words[kind]
    for number, event in enumerate(result.events.read(kind)):
        if number == most:
            stack.console.result("    … and more; --json has all")
            return
        sign = stack.console.symbol(status, stack.console.stdout)
        stack.console.result(f"{sign} {word}{printable(event.path)}: {event.reason}")


def printable(path: str) -> str:
    """Return a path that is safe to print: line feeds, control characters and bytes that are no text are escaped."""
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in path)


def wrong_in(result: Result) -> str:
    """Return in words what is still wrong."""
    counts, parts = result.counts, []
    wrong = counts.wrong - counts.changed
    if wrong:
        parts.append(f"{_entries(wrong)} {_are(wrong)} wrong")
    if counts.failed:
        parts.append(f"{counts.failed:,} could not be looked at or changed")
    unread = sum(1 for each in result.findings if each.status == "fail")
    if unread:
        what = "secret or mount" if unread == 1 else "secrets or mounts"
        parts.append(f"{unread} {what} can't be read by {'its' if unread == 1 else 'their'} services")
    return ", ".join(parts)


def what_helps(result: Result, owner: str | None) -> str:
    """Return the hint of a check: the command that puts right what can be put right, and whether that is all."""
    named = "each is named above, with the reason"
    fixable = _fixable(result) + result.counts.needs_root
    if not fixable:
        return named
    again = f"`{command_again(owner, root=needs_root(result))}`"
    if fixable == result.counts.wrong and not result.counts.failed and _all_read(result):
        return f"{again} puts it right"
    return f"{again} puts {fixable:,} of them right; {named}"


def what_is_left(result: Result, owner: str | None) -> str:
    """Return the hint below what `perms.fix` could not put right."""
    if not needs_root(result):
        return "each is named above, with the reason"
    return f"`{command_again(owner or as_owner_flag(result.target), root=True)}` does the rest"


def _fixable(result: Result) -> int:
    """Return how many entries this user's fix would put right."""
    return result.counts.wrong - result.counts.refused - result.counts.needs_root


def _all_read(result: Result) -> bool:
    return not any(each.status == "fail" for each in result.findings)


def _entries(number: int) -> str:
    return f"{number:,} {'entry' if number == 1 else 'entries'}"


def _are(number: int) -> str:
    return "is" if number == 1 else "are"


def needs_root(result: Result) -> bool:
    """Return whether some entries can be put right by root only."""
    return result.counts.needs_root > 0


def as_owner_flag(target: Target) -> str:
    """Return a target as `--owner` takes it."""
    return f"{target.user}:{target.group}"


def command_again(owner: str | None, *, root: bool) -> str:
    """Return the command line that does the rest, with sudo where it takes `root`."""
    from stackhand.engine.host.sudo import command_line

    words = [*command_line("perms.fix"), *(["--owner", owner] if owner else [])]
    return shlex.join(["sudo", *words] if root else ["inv", "perms.fix", *words[words.index("perms.fix") + 1 :]])
