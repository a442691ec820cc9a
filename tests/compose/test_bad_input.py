"""What people get wrong: exit code, one line that says it, one that helps. No engine is asked for any of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from shapes import plain
from support import IMAGE, Project


@dataclass(frozen=True)
class Case:
    """What is wrong, and what has to be said about it."""

    compose: str | Mapping[str, Any]
    code: int
    error: str
    hint: str = ""
    env: Mapping[str, str] = field(default_factory=dict)
    words: tuple[str, ...] = ("services.start",)
    prepare: Callable[[Path], object] = lambda folder: None


def service(**more: Any) -> dict[str, Any]:
    return {"services": {"web": {"image": IMAGE, **more}}}


def settings(text: str) -> Callable[[Path], object]:
    return lambda folder: (folder / "invoke.yaml").write_text(text)


WELL = service()
CYCLE = {"services": {name: {"image": IMAGE, "depends_on": [need]} for name, need in ("ab", "bc", "ca")}}

CASES = {
    "broken YAML": Case("services:\n  web:\n   image: x\n  bad\n", 2, "yaml: line 4", "compose config"),
    "not a mapping": Case("- a\n- b\n", 2, "compose file is not valid", "compose config"),
    "empty file": Case("", 2, "compose file", ""),
    "unknown key": Case(service(imag="x"), 2, "Additional property imag", "compose config"),
    "undefined dependency": Case(service(depends_on=["zz"]), 2, '"zz"', ""),
    "undefined volume": Case(service(volumes=["data:/x"]), 2, "undefined volume data", ""),
    "missing env file": Case(service(env_file="nope.env"), 2, "nope.env", "create the env file"),
    "missing variable": Case(service(command="${NOPE:?is needed}"), 2, "NOPE", "set the variable"),
    "cycle": Case(CYCLE, 2, " → ", "remove one of these"),
    "unknown service": Case(
        WELL, 2, "unknown service 'wbe'", "did you mean 'web'?", words=("services.start", "-s", "wbe"),
    ),
    "unknown service, status": Case(
        WELL, 2, "unknown service 'x'", "services: web", words=("services.status", "-s", "x"),
    ),
    "unknown service task": Case(WELL, 2, "unknown service 'wbe'", "did you mean 'web'?", words=("up.wbe",)),
    "unknown setting": Case(
        WELL, 2, "unknown setting stackhand.start.retrys", "did you mean 'retries'?",
        prepare=settings("stackhand: {start: {retrys: 3}}"),
    ),
    "setting of a wrong type": Case(
        WELL, 2, "stackhand.start.timeout", "", prepare=settings("stackhand: {start: {timeout: soon}}"),
    ),
    "section of a wrong type": Case(WELL, 2, "stackhand", "", prepare=settings("stackhand: 5")),
    "unknown variable": Case(
        WELL, 2, "INVOKE_STACKHAND_START_RETRYS", "INVOKE_STACKHAND_START_RETRIES",
        env={"INVOKE_STACKHAND_START_RETRYS": "3"},
    ),
    "bad variable": Case(
        WELL, 2, "stackhand.start.retries", "INVOKE_STACKHAND_START_RETRIES",
        env={"INVOKE_STACKHAND_START_RETRIES": "many"},
    ),
    "bad timeout": Case(WELL, 2, "--timeout", "", words=("services.start", "--timeout", "soon")),
    "bad retries": Case(WELL, 2, "--retries", "", words=("services.start", "--retries", "0")),
    "no engine": Case(
        WELL, 3, "/nowhere.sock", "DOCKER_HOST", env={"DOCKER_HOST": "unix:///nowhere.sock"},
    ),
    "no engine, tcp": Case(WELL, 3, "127.0.0.1:1", "DOCKER_HOST", env={"DOCKER_HOST": "tcp://127.0.0.1:1"}),
    "no engine, one service": Case(
        WELL, 3, "/nowhere.sock", "DOCKER_HOST", env={"DOCKER_HOST": "unix:///nowhere.sock"}, words=("up.web",),
    ),
    "no engine, status": Case(
        WELL, 3, "/nowhere.sock", "DOCKER_HOST",
        env={"DOCKER_HOST": "unix:///nowhere.sock"}, words=("services.status",),
    ),
    "named file is missing": Case(WELL, 2, "other.yaml", "", env={"COMPOSE_FILE": "other.yaml"}),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_bad_input(project: Project, name: str) -> None:
    case = CASES[name]
    project.write(case.compose)
    case.prepare(project.directory)
    result = project.inv(*case.words, "--json", env=case.env)
    assert result.code == case.code, result
    lines = [line for line in result.stderr.splitlines() if line.startswith(("error: ", "hint: "))]
    assert lines, result
    assert case.error in lines[0], result
    assert [line.split(":")[0] for line in lines] in (["error"], ["error", "hint"]), result
    if case.hint:
        assert case.hint in lines[1], result
    assert "Traceback" not in result.stderr
    document = json.loads(result.stdout)
    assert document["ok"] is False


def test_no_compose_file(project: Project) -> None:
    for task in ("services.start", "services.status", "up", "services.graph"):
        result = project.inv(task, "--json")
        assert result.code == 2, result
        assert result.stderr.startswith("error: no compose file in ")
        assert "COMPOSE_FILE" in result.stderr.splitlines()[1]
        assert result.json()["ok"] is False
    listed = project.inv("-l")
    assert listed.code == 0, listed
    assert "services.start" in listed.stdout


def test_a_broken_compose_file_does_not_stop_listing(project: Project) -> None:
    project.write("services: [broken")
    listed = project.inv("-l")
    assert listed.code == 0, listed
    assert "services.start" in listed.stdout
    assert listed.stderr == ""


def test_what_the_command_line_can_not_mean(project: Project) -> None:
    project.services(web=plain())
    for words in (["nosuch.task"], ["services.start", "--nosuch"], ["services.start", "--timeout"]):
        result = project.inv(*words)
        assert result.code == 2, result
        assert "Traceback" not in result.stderr


def test_a_cycle_is_named_in_the_direction_of_needs(project: Project) -> None:
    project.write(CYCLE)
    for task in ("services.start", "services.graph", "up.a"):
        result = project.inv(task)
        assert result.code == 2, result
        assert any(circle in result.stderr for circle in ("a → b → c → a", "b → c → a → b", "c → a → b → c"))
