"""Which containers belong to another folder: paths in, verdicts out."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from builders import container, project, service

from stackhand.engine.compose.project import Project
from stackhand.errors import ForeignContainers, OtherFolder
from stackhand.services.origin import Takeover, made_elsewhere, refuse
from stackhand.services.restart.plan import Changes, plan_restart
from stackhand.services.start.decide import plan_start
from stackhand.services.start.facts import Facts


def folder(root: Path, name: str, file: str = "compose.yaml") -> Path:
    path = root / name
    path.mkdir(parents=True, exist_ok=True)
    (path / file).write_text("services: {}")
    return path


def at(path: Path, file: str = "compose.yaml") -> Project:
    return project(service("web"), directory=path, files=(path / file,))


def is_elsewhere(stack: Project, made_in: Path | str, made_from: Path | str = "") -> bool:
    made = container("web", made_in=str(made_in), made_from=str(made_from or Path(made_in) / "compose.yaml"))
    return made_elsewhere(stack, [made]) == {"web": str(made_in)}


def test_another_folder_with_a_compose_file(tmp_path: Path) -> None:
    mine, other = folder(tmp_path, "a/shop"), folder(tmp_path, "b/shop")
    assert is_elsewhere(at(mine), other)
    assert not is_elsewhere(at(mine), mine)
    # Other files of the same folder are the same project.
    assert not is_elsewhere(at(mine), mine, f"{mine}/compose.prod.yaml,{mine}/more.yaml")
    assert made_elsewhere(at(mine), [container("web")]) == {}


def test_a_folder_that_was_moved_or_is_on_another_machine(tmp_path: Path) -> None:
    mine, emptied = folder(tmp_path, "new/shop"), tmp_path / "emptied"
    emptied.mkdir()
    assert not is_elsewhere(at(mine), tmp_path / "old/shop")
    assert not is_elsewhere(at(mine), "/home/runner/work/shop")
    assert not is_elsewhere(at(mine), emptied)  # the files went a folder down
    assert not is_elsewhere(at(mine), mine / "compose.yaml" / "shop")
    assert is_elsewhere(at(mine), emptied, "-")  # from Compose's standard input


def test_links_lead_to_the_same_folder(tmp_path: Path) -> None:
    mine = folder(tmp_path, "shop")
    (tmp_path / "link").symlink_to(mine)
    assert not is_elsewhere(at(mine), tmp_path / "link")
    assert not is_elsewhere(at(tmp_path / "link"), mine)
    # Two projects may have one file between them, by a link: that is not one folder.
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "compose.yaml").symlink_to(mine / "compose.yaml")
    assert is_elsewhere(at(tmp_path / "one"), tmp_path / "two")


def test_the_folder_is_the_one_of_the_first_file(tmp_path: Path) -> None:
    mine = folder(tmp_path, "deploy")
    below = project(service("web"), directory=tmp_path, files=(tmp_path / "deploy/compose.yaml",))
    assert not is_elsewhere(below, mine)
    # `--project-directory` has Compose write another folder.
    assert not is_elsewhere(below, tmp_path, mine / "compose.yaml")


def test_a_folder_that_nobody_may_look_into_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stat(path: Path, **_: object) -> os.stat_result:
        raise PermissionError(13, "Permission denied", str(path))

    mine = folder(tmp_path, "a/shop")
    monkeypatch.setattr(Path, "stat", stat)
    assert is_elsewhere(at(mine), "/home/somebody/shop")


def test_somebody_is_asked_once_for_a_folder() -> None:
    asked: list[str] = []
    takeover = Takeover()
    shop = project(service("web"))
    with pytest.raises(OtherFolder, match=r"web was started from another folder with the project name shop: /b$"):
        takeover.check(shop, {"web": "/b"})
    takeover.ask = lambda error: asked.append(error.message)
    takeover.check(shop, {"db": "/b"})
    takeover.check(shop, {"web": "/b"})
    takeover.check(shop, {"web": "/c", "db": "/b"})
    assert len(asked) == 2


def test_a_reset_refuses(tmp_path: Path) -> None:
    mine, other = folder(tmp_path, "a/shop"), folder(tmp_path, "b/shop")
    refuse(at(mine), [container("web", made_in=str(mine), made_from=f"{mine}/compose.yaml")])
    with pytest.raises(ForeignContainers, match="nothing was removed"):
        refuse(at(mine), [container("web", made_in=str(other), made_from=f"{other}/compose.yaml")])


def test_a_plan_says_whose_containers_it_changes() -> None:
    shop = project(service("web"), service("db"))
    there = {"web": [container("web", status="exited", exit_code=1)], "db": [container("db")]}
    facts = Facts(there, elsewhere={"web": "/b", "db": "/b"})
    told = "start web: it is exited; it was started from another folder, /b"
    assert [str(action) for action in plan_start(shop, ["web", "db"], facts).actions] == [told]
    assert [str(action) for action in plan_restart(shop, ["web", "db"], facts, Changes()).actions] == [told]
