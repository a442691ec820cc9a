"""No secret's value leaves, wherever it turns up: logs, probes, builds, errors, JSON, plans."""

from __future__ import annotations

import pytest
from shapes import FAST, after, check, one_shot, plain, sh
from support import IMAGE, Project

ENV, FILE, URL, VARIABLE, NAME = "env-$3cr3t$$-1", "file-s3cr3t-2", "url-s3cr3t-3", "var-s3cr3t-4", "postgres"
IN_COMPOSE_FILE = ENV.replace("$", "$$")
SECRETS = (ENV, FILE, URL, VARIABLE)

STACK = {
    "loud": one_shot(
        1,
        "echo env $API_TOKEN; echo file $(cat /run/secrets/key); "
        "echo url $DATABASE_URL; echo var $(cat /run/secrets/v)",
        environment={"API_TOKEN": IN_COMPOSE_FILE, "DATABASE_URL": f"postgres://app:{URL}@db/app"},
        secrets=["key", "v"],
    ),
    "sick": plain(
        environment={"DB_PASSWORD": IN_COMPOSE_FILE},
        secrets=["key"],
        healthcheck=check("echo tried $DB_PASSWORD and $(cat /run/secrets/key); exit 1"),
    ),
    # A password that is also a service's name must be hidden in logs, and the service must keep its name.
    "postgres": one_shot(1, "echo password is postgres", environment={"POSTGRES_PASSWORD": NAME}),
    "wrong": plain(command=[IN_COMPOSE_FILE], environment={"API_TOKEN": IN_COMPOSE_FILE}),
    "next": plain(depends_on=["loud"]),
}


@pytest.fixture
def stack(project: Project) -> Project:
    project.write(
        {
            "services": {name: {"image": IMAGE, "stop_grace_period": "0s", **raw} for name, raw in STACK.items()},
            "secrets": {"key": {"file": "./key.txt"}, "v": {"environment": "TOP"}},
        }
    )
    (project.directory / "key.txt").write_text(f"{FILE}\n")
    project.env["TOP"] = VARIABLE
    return project


def clean(text: str) -> str:
    for secret in SECRETS:
        assert secret not in text, f"{secret} is in\n{text}"
    return text


@pytest.mark.mechanism
def test_a_start_that_fails_shows_everything_but_secrets(stack: Project) -> None:
    words = ("--timeout", "2", "--retries", "1")
    for task in ("services.start", "up"):
        result = stack.inv(task, *words, "--json", env=FAST)
        assert result.code == 1, result
        clean(result.stdout + result.stderr)
        services = {each["name"]: each for each in result.json()["services"]}
        assert services["loud"]["error"]["log_tail"][-4:] == [
            "env ***", "file ***", "url postgres://app:***@db/app", "var ***",
        ]  # fmt: skip
        assert services["sick"]["error"]["probe_output"] == "tried *** and ***"
        assert services["postgres"]["error"]["log_tail"][-1] == "password is ***"
        assert set(services) == set(STACK)
    shown = stack.inv("services.start", *words, env=FAST)
    clean(shown.stdout + shown.stderr)
    assert "tried *** and ***" in shown.stderr
    assert "postgres failed" in shown.stderr


@pytest.mark.parametrize(
    "words",
    [
        ("services.status",),
        ("services.status", "--json"),
        ("services.logs",),
        ("services.logs", "--json"),
        ("services.fixes",),
        ("services.fixes", "--json"),
        ("--dry", "services.start"),
        ("services.graph", "--json"),
        ("--debug", "services.status"),
        ("--echo", "services.status"),
    ],
    ids=" ".join,
)
def test_other_tasks(stack: Project, words: tuple[str, ...]) -> None:
    stack.compose("up", "-d", "loud", "sick", check=False)
    env = {**FAST, "INVOKE_STACKHAND_START_RETRIES": "1", "INVOKE_STACKHAND_START_TIMEOUT": "2"}
    result = stack.inv(*words, env=env)
    clean(result.stdout + result.stderr)
    if "services.logs" in words:
        assert "***" in result.stdout


@pytest.mark.mechanism
def test_a_build_that_prints_one(project: Project) -> None:
    (project.directory / "Dockerfile").write_text(f"FROM {IMAGE}\nARG TOKEN\nRUN echo using $TOKEN && exit 3\n")
    build = {"context": ".", "args": {"TOKEN": IN_COMPOSE_FILE}}
    project.write({"services": {"web": {"build": build, "environment": {"API_TOKEN": IN_COMPOSE_FILE}}}})
    result = project.inv("services.start", "--json")
    assert result.code == 1, result
    assert "using ***" in clean(result.stdout + result.stderr)


def test_nothing_is_left_on_disk(stack: Project) -> None:
    stack.inv("services.start", "--timeout", "2", "--retries", "1", "--json", env=FAST)
    stack.inv("-l")
    for path in (stack.directory / ".stackhand").rglob("*"):
        if path.is_file():
            clean(path.read_text(errors="replace"))


def test_a_secret_in_the_compose_error(project: Project) -> None:
    project.write(
        {
            "services": {
                "web": {
                    "image": IMAGE,
                    "command": sh("true"),
                    "environment": {"API_TOKEN": URL},
                    "depends_on": after(db="healthy"),
                },
                "db": {"image": f"127.0.0.1:1/{URL}/x:1"},
            }
        }
    )
    result = project.inv("services.start", "--json")
    assert result.code == 1, result
    clean(result.stdout + result.stderr)
