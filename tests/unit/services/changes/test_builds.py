"""Whether an image has to be built anew."""

from __future__ import annotations

import os
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from builders import project, service

from stackhand.engine.api.containers import Image
from stackhand.engine.compose.project import Project
from stackhand.services.changes.builds import Builds
from stackhand.state.folder import StateFolder

NOW = datetime.now(timezone.utc)


class FakeEngine:
    """Has images, and says when they were made."""

    def __init__(self) -> None:
        self.offset = timedelta()
        self.images: dict[str, Image] = {"image/api": Image("one", NOW + timedelta(hours=1))}

    def image(self, name: str) -> Image | None:
        return self.images.get(name)

    def clock_offset(self) -> timedelta:
        return self.offset

    def image_id(self, name: str) -> str | None:
        return self.images[name].id if name in self.images else None


class Place:
    """A project whose service api is built from a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "api"
        self.folder.mkdir()
        (self.folder / "Dockerfile").write_text("FROM scratch\n")
        (self.folder / "code").write_text("1")
        self.engine = FakeEngine()
        self.state = StateFolder(folder)
        self.build: dict[str, Any] = {"context": str(self.folder)}
        self.secret_files: dict[str, Path] = {}

    @property
    def project(self) -> Project:
        return project(
            service("api", builds=True, raw={"build": self.build}),
            service("twin", builds=True, image="image/api", raw={"build": self.build}),
            service("db"),
            secret_files=self.secret_files,
        )

    def cause(self) -> str | None:
        builds = Builds(self.engine, self.state)  # type: ignore[arg-type]
        sources = builds.sources(self.project, ["api", "db"])
        return builds.changed(self.project, sources, {"image/api": self.engine.image_id("image/api")}).get("api")

    def remember_current(self) -> None:
        builds = Builds(self.engine, self.state)  # type: ignore[arg-type]
        builds.remember_current(self.project, builds.sources(self.project, ["api"]))

    def remembered(self) -> str:
        return "".join(path.read_text() for path in self.state.path.glob("*.json"))


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_nothing_remembered_the_times_decide(place: Place) -> None:
    assert place.cause() is None
    place.engine.images["image/api"] = Image("one", NOW - timedelta(hours=1))
    assert "newer than its image" in (place.cause() or "")
    place.remember_current()
    assert place.cause() is None


@pytest.mark.parametrize(("hours", "newer"), [(-2, False), (0, True), (2, True), (-0.5, True)])
def test_the_clock_of_the_engine_may_be_ahead_or_behind(place: Place, hours: float, newer: bool) -> None:
    """The image was made an hour ago, if both clocks are right."""
    place.engine.offset = timedelta(hours=hours)
    place.engine.images["image/api"] = Image("one", NOW - timedelta(hours=1))
    assert bool(place.cause()) is newer


def test_a_changed_file(place: Place) -> None:
    place.remember_current()
    (place.folder / "code").write_text("2")
    assert place.cause() == "its build context changed, last written: code"
    (place.folder / "code").write_text("1")
    assert place.cause() is None


def test_a_touched_file_is_no_change(place: Place) -> None:
    place.remember_current()
    os.utime(place.folder / "code", (1, 1))
    assert place.cause() is None


@pytest.mark.parametrize("change", ["new", "gone", "mode", "link"])
def test_what_else_a_builder_sees(place: Place, change: str) -> None:
    place.remember_current()
    code = place.folder / "code"
    if change == "new":
        (place.folder / "folder").mkdir()
    elif change == "mode":
        code.chmod(0o755)
    else:
        code.unlink()
        if change == "link":
            code.symlink_to("Dockerfile")
    assert place.cause()


def test_an_image_that_somebody_else_built(place: Place) -> None:
    place.remember_current()
    (place.folder / "code").write_text("2")
    place.engine.images["image/api"] = Image("two", datetime.now(timezone.utc) + timedelta(hours=1))
    assert place.cause() is None


def test_settings_and_secret_arguments(place: Place) -> None:
    place.build["args"] = {"LEVEL": "low", "TOKEN": "swordfish", "URL": "postgres://me:hunter22@db/x"}
    place.remember_current()
    assert place.cause() is None
    remembered = place.remembered()
    assert "swordfish" not in remembered
    assert "hunter22" not in remembered
    for name, value in (("LEVEL", "high"), ("TOKEN", "marlin"), ("URL", "postgres://me:other123@db/x")):
        before = place.build["args"]
        place.build["args"] = {**before, name: value}
        assert place.cause() == "its build settings changed"
        place.build["args"] = before
    assert place.cause() is None


def test_the_same_secret_gives_another_digest_each_time(place: Place) -> None:
    place.build["args"] = {"TOKEN": "swordfish"}
    place.remember_current()
    first = place.state.recall("builds")["api"]
    place.engine.images["image/api"] = Image("two", NOW)
    place.remember_current()
    second = place.state.recall("builds")["api"]
    assert first["hidden"] != second["hidden"]
    assert place.cause() is None


def test_a_changed_secret_file_in_the_context_is_seen_without_its_content(place: Place) -> None:
    secret = place.folder / "password.txt"
    secret.write_text("one")
    place.secret_files = {"password": secret}
    place.remember_current()
    assert place.cause() is None
    secret.write_text("two")
    assert place.cause()


def test_dockerfiles_elsewhere_and_further_contexts(place: Place, tmp_path: Path) -> None:
    more = tmp_path / "more"
    more.mkdir()
    (tmp_path / "Dockerfile.api").write_text("FROM scratch\n")
    place.build |= {"dockerfile": "../Dockerfile.api", "additional_contexts": {"more": str(more)}}
    place.remember_current()
    (more / "file").write_text("x")
    assert place.cause()
    place.remember_current()
    (tmp_path / "Dockerfile.api").write_text("FROM scratch\nLABEL a=b\n")
    assert place.cause()


def test_no_folder_here_is_never_a_change(place: Place) -> None:
    place.build["context"] = "https://example.com/repository.git"
    assert place.cause() is None


def test_a_shared_image_is_built_for_the_service_it_was_built_for(place: Place) -> None:
    builds = Builds(place.engine, place.state)  # type: ignore[arg-type]
    assert builds.siblings(place.project, ["api"]) == ["api", "twin"]
    assert builds.builder(place.project, "api") == "api"
    place.engine.images["image/api"] = Image("one", NOW, built_for="twin")
    assert builds.builder(place.project, "api") == "twin"
    place.engine.images["image/api"] = Image("one", NOW, built_for="somebody")
    assert builds.builder(place.project, "api") == "api"


def test_a_memory_of_another_version_is_none(place: Place) -> None:
    place.state.remember("builds", {"api": {"of": "yesterday"}, "db": 3})
    assert place.cause() is None


def test_what_is_built_on_a_changed_image_changes_with_it(tmp_path: Path, place: Place) -> None:
    app = tmp_path / "app"
    app.mkdir()
    (app / "Dockerfile").write_text("FROM base\n")
    stack = project(
        service("app", builds=True, built_on=("api",), raw={"build": {"context": str(app)}}),
        service("api", builds=True, raw={"build": place.build}),
    )
    place.engine.images["image/app"] = Image("two", NOW + timedelta(hours=1))
    place.remember_current()
    (place.folder / "code").write_text("2")
    builds = Builds(place.engine, place.state)  # type: ignore[arg-type]
    images = {name: place.engine.image_id(name) for name in ("image/app", "image/api")}
    causes = builds.changed(stack, builds.sources(stack, ["app"]), images)
    assert causes["app"] == "api, which it is built on: its build context changed, last written: code"
