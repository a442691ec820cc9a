"""Reading the project: profiles, overrides, hashes, and the secrets that nobody may see afterwards."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from stackhand.engine.compose.cli import Selection
from stackhand.engine.compose.loader import ProjectLoader
from stackhand.engine.host.programs import Completed, Programs
from stackhand.errors import CommandFailed, UnknownService
from stackhand.output.redact import Redactor

SERVICES: dict[str, dict[str, Any]] = {
    "db": {"image": "db"},
    "web": {"image": "web"},
    "debug": {"image": "debug", "profiles": ["tools"]},
    "mail": {"image": "mail", "profiles": ["dev"]},
}


class FakeCompose(Programs):
    """Answers `config` as Compose does: with the services of the profiles that are on the command line."""

    def __init__(self, **document: Any) -> None:
        super().__init__()
        self.document = document
        self.ran: list[list[str]] = []
        self.fails: CommandFailed | None = None

    def run(self, argv: Sequence[str], **_: Any) -> Completed:
        self.ran.append([*argv])
        if "--hash" in argv:
            if self.fails:
                raise self.fails
            return Completed(tuple(argv), 0, f"db {len(self.ran)}\nweb 0\n", "")
        active = {argv[at + 1] for at, word in enumerate(argv) if word == "--profile"}
        services = {
            name: raw
            for name, raw in SERVICES.items()
            if "*" in active or not raw.get("profiles") or active & set(raw["profiles"])
        }
        return Completed(tuple(argv), 0, json.dumps({"name": "shop", "services": services, **self.document}), "")

    def times(self, word: str) -> int:
        return sum(word in argv for argv in self.ran)


def loader(folder: Path, fake: FakeCompose, environ: Mapping[str, str] | None = None) -> ProjectLoader:
    return ProjectLoader(fake, folder, environ or {}, Redactor())


def test_the_project_is_read_once(tmp_path: Path) -> None:
    fake = FakeCompose()
    reads = loader(tmp_path, fake)
    assert set(reads.project.services) == {"db", "web"}
    assert reads.project is reads.project
    assert reads.select([]) == ["db", "web"]
    assert reads.select(["web", "web"]) == ["web"]
    assert len(fake.ran) == 1


def test_a_named_service_makes_its_profile_active(tmp_path: Path) -> None:
    reads = loader(tmp_path, FakeCompose(), {"COMPOSE_PROFILES": "dev"})
    assert reads.select(["debug"]) == ["debug"]
    assert set(reads.project.services) == {"db", "web", "debug", "mail"}
    assert reads.compose.selection == Selection(profiles=("dev", "tools"))


def test_an_unknown_service_suggests_also_what_is_inactive(tmp_path: Path) -> None:
    reads = loader(tmp_path, FakeCompose())
    with pytest.raises(UnknownService) as caught:
        reads.select(["debgu"])
    assert caught.value.hint == "did you mean 'debug'?"
    assert set(reads.project.services) == {"db", "web"}


def test_the_development_overrides_replace_what_was_read(tmp_path: Path) -> None:
    reads = loader(tmp_path, FakeCompose(), {"COMPOSE_PROFILES": "tools"})
    assert "mail" not in reads.project.services
    reads.use_development()
    assert set(reads.project.services) == {"db", "web", "debug", "mail"}


def test_hashes_are_asked_for_once_and_anew_for_other_profiles(tmp_path: Path) -> None:
    fake = FakeCompose()
    reads = loader(tmp_path, fake)
    reads.prefetch_hashes()
    first = reads.chosen().read_hashes()
    assert reads.chosen().read_hashes() == first
    assert fake.times("--hash") == 1
    reads.select(["debug"])
    assert reads.chosen().read_hashes() != first
    assert fake.times("--hash") == 2


def test_what_was_chosen_stays_together_whatever_is_chosen_later(tmp_path: Path) -> None:
    fake = FakeCompose()
    reads = loader(tmp_path, fake)
    before = reads.chosen()
    reads.select(["debug"])
    assert reads.chosen().project is reads.project is not before.project
    assert before.read_hashes()
    assert "--profile" not in fake.ran[-1]
    assert reads.chosen().read_hashes()
    assert "--profile" in fake.ran[-1]


def test_what_a_prefetch_could_not_do_is_told_to_the_caller(tmp_path: Path) -> None:
    fake = FakeCompose()
    fake.fails = CommandFailed(["docker"], 1, "no")
    reads = loader(tmp_path, fake)
    reads.prefetch_hashes()
    with pytest.raises(CommandFailed):
        reads.chosen().read_hashes()


def test_threads_that_ask_at_once_get_one_project(tmp_path: Path) -> None:
    fake = FakeCompose()
    reads = loader(tmp_path, fake)
    found: list[Any] = []
    threads = [threading.Thread(target=lambda: found.append(reads.project)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({id(each) for each in found}) == 1
    assert len(fake.ran) == 1


def test_secrets_are_known_before_the_project_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "key.txt").write_text("from-a-file\n")
    (tmp_path / ".env").write_text("TOKEN=from-dot-env\nGIVEN=from-a-variable\n")
    monkeypatch.setitem(SERVICES, "web", {"image": "web", "environment": {"DB_PASSWORD": "from-a-service"}})
    secrets = {"a": {"file": "key.txt"}, "b": {"environment": "GIVEN"}, "gone": {"file": "nowhere.txt"}}
    redactor = Redactor()
    environ = {"API_KEY": "from-the-shell"}
    assert ProjectLoader(FakeCompose(secrets=secrets), tmp_path, environ, redactor).project
    text = "from-a-file from-dot-env from-a-variable from-a-service from-the-shell"
    assert redactor.text(text) == "*** *** *** *** ***"


def test_names_are_no_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SERVICES, "postgres", {"image": "db", "environment": {"POSTGRES_PASSWORD": "postgres"}})
    redactor = Redactor()
    assert ProjectLoader(FakeCompose(), tmp_path, {}, redactor).project
    assert redactor.own_text("postgres") == "postgres"
    assert redactor.text("FATAL: no role postgres, password=postgres") == "FATAL: no role postgres, password=***"
