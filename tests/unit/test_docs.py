"""The documentation: links lead somewhere, commands name tasks that exist, and the files of a release agree."""

from __future__ import annotations

import re
from collections.abc import Iterator
from fnmatch import fnmatch
from functools import cache
from pathlib import Path

import pytest
from invoke.collection import Collection

CHECKOUT = Path(__file__).parents[2]
PACKAGE = CHECKOUT / "tasks/stackhand"
FOLDERS = ("", "docs", "docs/images", "bench", "examples/ai-workflow")
PAGES = sorted(page for folder in FOLDERS for page in (CHECKOUT / folder).glob("*.md"))

_FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\[[^]]*\]\((?P<target>[^)\s]+)\)")
_HEADING = re.compile(r"^#+ +(?P<title>.+)$", re.MULTILINE)
# At the start of a line (after a prompt, a comment sign or `run:`) or of inline code. Invoke's own flags come first.
_COMMAND = re.compile(
    r"(?:^(?:\$ |.*# |.*run: |  +)?|`)(?:sudo )?(?:\./)?inv(?: --(?:dry|debug))*(?P<tasks>(?: [a-z][\w.-]*)+)",
    re.MULTILINE,
)
# Tasks of the examples, and mistakes that are shown on purpose.
_EXAMPLES = {"ready", "seed", "smoke", "integration-tests", "services.nope"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(CHECKOUT)))
def test_links_lead_somewhere(page: Path) -> None:
    broken = []
    for link in _LINK.finditer(_FENCE.sub("", page.read_text(encoding="utf-8"))):
        path, _, anchor = link["target"].partition("#")
        if path.startswith(("https://", "http://")):
            continue
        target = (page.parent / path) if path else page
        if not target.exists() or (anchor and anchor not in _anchors(target)):
            broken.append(link["target"])
    assert broken == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(CHECKOUT)))
def test_commands_name_tasks_that_exist(page: Path) -> None:
    known = _tasks() | _EXAMPLES
    unknown = [name for name in _commands(page.read_text(encoding="utf-8")) if name not in known]
    assert unknown == []


def test_commands_are_found() -> None:
    text = """
$ sudo inv --dry up --dev
`./inv engine.install demo`, `inv perms.undo 2026`
  run: inv services.start --yes
inv services.strat
inv      ./inv makes .venv
"""
    assert list(_commands(text)) == ["up", "engine.install", "demo", "perms.undo", "services.start", "services.strat"]


def test_headings_have_the_anchors_that_links_use() -> None:
    assert _anchor("`services.start`, `up`") == "servicesstart-up"
    assert _anchor("What the compose file knows") == "what-the-compose-file-knows"


def test_the_changelog_has_this_version() -> None:
    version = re.search(r'^version = "(.+)"$', (CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)
    assert version
    titles = [found["title"] for found in _HEADING.finditer((CHECKOUT / "CHANGELOG.md").read_text(encoding="utf-8"))]
    assert any(title.split()[0] == version[1] for title in titles)


def test_all_files_of_the_package_are_installed_with_it() -> None:
    """Setuptools takes Python files by itself, and others by the patterns of `package-data`."""
    settings = (CHECKOUT / "pyproject.toml").read_text(encoding="utf-8")
    patterns = re.search(r"^\[tool\.setuptools\.package-data\]\nstackhand = \[(?P<list>.*?)\]", settings, re.MULTILINE)
    assert patterns
    taken = [pattern.removeprefix("**/") for pattern in re.findall(r'"(.+?)"', patterns["list"])]
    files = [path for path in PACKAGE.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    left_out = [path for path in files if path.suffix != ".py" and not any(fnmatch(path.name, p) for p in taken)]
    assert left_out == []
    assert [path for path in files if path.suffix == ".py" and not (path.parent / "__init__.py").exists()] == []


def _commands(text: str) -> Iterator[str]:
    """Yield the names of tasks in a page's commands. A word that is no task's argument has letters or a dot in it."""
    for command in _COMMAND.finditer(text):
        yield from command["tasks"].split()


@cache
def _tasks() -> frozenset[str]:
    from stackhand.cli.namespace import ns

    names = frozenset(_names(ns, ""))
    # A service's task; the samples have services of any name. And all of it below another collection, in chaining.md.
    services = {f"up.{service}" for service in ("api", "a_b")}
    return names | services | {f"stack.{name}" for name in names} | {"up", "stack.up"}


def _names(collection: Collection, prefix: str) -> Iterator[str]:
    yield from (f"{prefix}{name}" for name in collection.tasks)
    for name, inner in collection.collections.items():
        yield from _names(inner, f"{prefix}{name}.")


@cache
def _anchors(page: Path) -> frozenset[str]:
    text = _FENCE.sub("", page.read_text(encoding="utf-8"))
    return frozenset(_anchor(heading["title"]) for heading in _HEADING.finditer(text))


def _anchor(title: str) -> str:
    """Return the anchor that GitHub and GitLab give a heading: lower case, words and hyphens only."""
    return re.sub(r"[^\w\- ]", "", title.strip().lower()).replace(" ", "-")
