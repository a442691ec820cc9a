"""The files of a build context, as a builder sees them."""

from __future__ import annotations

from pathlib import Path

import pytest

from stackhand.engine.api import build_context


def tree(folder: Path, *files: str) -> None:
    for name in files:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)


def names(folder: Path, dockerfile: Path | None = None) -> list[str]:
    found = build_context.read([folder], dockerfile)
    return [each.name.removeprefix("0/") for each in found.entries if each.path.is_file()]


@pytest.mark.parametrize(
    ("ignore", "seen"),
    [
        ("", ["a.log", "app/b.py", "app/c.log", "app/deep/d.log"]),
        ("*.log", ["app/b.py", "app/c.log", "app/deep/d.log"]),
        ("**/*.log", ["app/b.py"]),
        ("# app\n\napp/\n", ["a.log"]),
        ("*\n!app/b.py", ["app/b.py"]),
        ("**/*.log\n!app/deep/d.log", ["app/b.py", "app/deep/d.log"]),
        ("/app/deep", ["a.log", "app/b.py", "app/c.log"]),
    ],
)
def test_dockerignore(tmp_path: Path, ignore: str, seen: list[str]) -> None:
    tree(tmp_path, "a.log", "app/b.py", "app/c.log", "app/deep/d.log")
    (tmp_path / ".dockerignore").write_text(ignore)
    assert [name for name in names(tmp_path) if name != ".dockerignore"] == seen


def test_one_beside_the_dockerfile_goes_first(tmp_path: Path) -> None:
    tree(tmp_path, "a", "b", "Dockerfile")
    (tmp_path / ".dockerignore").write_text("a\n")
    (tmp_path / "Dockerfile.dockerignore").write_text("b\n")
    assert set(names(tmp_path, tmp_path / "Dockerfile")) >= {"a", "Dockerfile"}
    assert "b" not in names(tmp_path, tmp_path / "Dockerfile")


def test_a_dockerfile_counts_wherever_it_is(tmp_path: Path) -> None:
    context = tmp_path / "context"
    tree(context, "a", "Dockerfile")
    (context / ".dockerignore").write_text("Dockerfile\n")
    outside = tmp_path / "Dockerfile"
    outside.write_text("FROM scratch")
    for dockerfile in (outside, context / "Dockerfile"):
        before = build_context.read([context], dockerfile)
        dockerfile.write_text("FROM other")
        after = build_context.read([context], dockerfile)
        assert before.listing != after.listing


def test_what_stackhand_remembers_is_no_part_of_it(tmp_path: Path) -> None:
    tree(tmp_path, "a")
    before = build_context.read([tmp_path], None).listing
    tree(tmp_path, ".stackhand/builds.json")
    assert build_context.read([tmp_path], None).listing == before


def test_private_files_are_not_read(tmp_path: Path) -> None:
    tree(tmp_path, "a", ".env", "tls/server.key", "secret.txt")
    private = [tmp_path / "secret.txt"]
    opened = []

    class Watched(type(tmp_path)):  # type: ignore[misc]
        def open(self, *words: object, **more: object) -> object:
            opened.append(self.name)
            return super().open(*words, **more)

    found = build_context.read([tmp_path], None, private)
    watched = [build_context.ContextEntry(each.name, Watched(each.path), each.status) for each in found.entries]
    assert build_context.BuildContext(tuple(watched), found.private).content
    assert opened == ["a"]
