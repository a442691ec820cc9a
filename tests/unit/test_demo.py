"""The demonstration touches its own project only, and says what went wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from stackhand import demo
from stackhand.demo import Demo, DemoFailed, Work, find
from stackhand.engine.compose.project import Project, Service
from stackhand.engine.host.programs import Completed, Programs
from stackhand.errors import CommandFailed, ConfigError
from stackhand.model import Action


class FakeCommands(Programs):
    """Answers by the first two words of a command."""

    def __init__(self, answers: Mapping[str, str | CommandFailed]) -> None:
        super().__init__()
        self.answers = answers
        self.ran: list[str] = []

    def run(self, argv: Sequence[str], **_: Any) -> Completed:
        self.ran.append(" ".join(argv))
        answer = next((text for start, text in self.answers.items() if " ".join(argv).startswith(start)), "")
        if isinstance(answer, CommandFailed):
            raise answer
        return Completed(tuple(argv), 0, answer, "")


def make(folder: Path, **answers: str | CommandFailed) -> tuple[Demo, FakeCommands]:
    commands = FakeCommands({key.replace("_", " "): text for key, text in answers.items()})
    return Demo(folder, commands, {}), commands


def with_secrets(folder: Path) -> Path:
    (folder / "secrets").mkdir()
    (folder / "secrets/one.txt").write_text("x")
    return folder


def test_a_project_of_another_folder_is_not_touched(tmp_path: Path) -> None:
    example, _ = make(tmp_path, docker_ps="/home/somebody/stack\n/home/somebody/stack\n")
    with pytest.raises(ConfigError, match="/home/somebody/stack") as caught:
        example.refuse_others("ai-workflow")
    assert caught.value.exit_code == 2
    assert "COMPOSE_PROJECT_NAME" in (caught.value.hint or "")


def test_volumes_whose_secrets_are_not_here_are_another_s(tmp_path: Path) -> None:
    example, _ = make(tmp_path, docker_ps="\n", docker_volume="ai-workflow_data\n")
    with pytest.raises(ConfigError, match="volumes such as ai-workflow_data"):
        example.refuse_others("ai-workflow")


def test_what_is_ours_is_ours(tmp_path: Path) -> None:
    mine, _ = make(with_secrets(tmp_path), docker_ps=f"{tmp_path}\n", docker_volume="ai-workflow_data\n")
    mine.refuse_others("ai-workflow")
    stopped, _ = make(tmp_path, docker_ps="", docker_volume="ai-workflow_data\n")
    stopped.refuse_others("ai-workflow")


def test_a_fresh_machine_is_nobodys(tmp_path: Path) -> None:
    make(tmp_path)[0].refuse_others("ai-workflow")


def test_secrets_are_made_once(tmp_path: Path) -> None:
    example, _ = make(tmp_path)
    assert [action.arguments for action in example.secrets().actions] == [("setup",)]
    with_secrets(tmp_path)
    assert not example.secrets()


@pytest.mark.parametrize(("known", "needed"), [(set(), True), ({"a", "b"}, False), ({"a"}, True)])
def test_the_base_image_is_made_where_images_have_to_be_built(tmp_path: Path, known: set[str], needed: bool) -> None:
    class Engine:
        def image_id(self, name: str) -> str | None:
            return name if name in known else None

    services = {
        "one": Service("one", "a", builds=True),
        "two": Service("two", "b", builds=True),
        "pulled": Service("pulled", "c"),
    }
    project = Project("p", tmp_path, services)
    assert bool(make(tmp_path)[0].images(Engine(), project)) is needed  # type: ignore[arg-type]


def test_a_script_s_own_words_are_passed_on(tmp_path: Path) -> None:
    script = str(tmp_path / "setup")
    failed = CommandFailed([script], 1, "working\nerror: no room\nhint: make some\n")
    commands = FakeCommands({script: failed})
    with pytest.raises(DemoFailed, match=r"^no room$") as caught:
        Demo(tmp_path, commands, {}).carry_out(Action("secrets", "make", "none", ("setup",)), lambda _: None)
    assert caught.value.hint == "make some"
    assert caught.value.exit_code == 1


def test_removing_takes_data_and_secrets_and_leaves_images(tmp_path: Path) -> None:
    example, commands = make(with_secrets(tmp_path))
    example.remove(lambda _: None)
    assert commands.ran == ["docker compose -f compose.yaml down --volumes --remove-orphans"]
    assert not (tmp_path / "secrets").exists()


def test_the_reference_stack_is_found_in_a_checkout_only(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert (find() / "compose.yaml").is_file()
    monkeypatch.setattr(demo, "__file__", str(tmp_path / "site-packages/stackhand/services/demo.py"))
    with pytest.raises(ConfigError, match="installed package") as caught:
        find()
    assert caught.value.exit_code == 2


def test_work_as_json() -> None:
    assert Work("7", "SUCCESS", {"words": 2}, 0.12345).to_json() == {
        "id": "7",
        "state": "SUCCESS",
        "result": {"words": 2},
        "seconds": 0.123,
    }
