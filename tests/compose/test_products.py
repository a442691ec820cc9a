"""Stacks in the shapes of well-known products: listed, drawn, planned; their secrets are masked, their names whole."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import yaml
from shapes import plain
from support import Project

from stackhand.cli.render import services as render
from stackhand.context import Stack
from stackhand.engine.api.resources import ProjectResources, Resource
from stackhand.output.console import Console
from stackhand.output.redact import MASK, Redactor
from stackhand.services import graph
from stackhand.services.reset.plan import decide
from stackhand.services.start.decide import plan_start
from stackhand.services.start.facts import Facts

FOLDER = Path(__file__).parent / "products"
PRODUCTS = sorted(FOLDER.glob("*.yaml"))


@pytest.fixture(params=PRODUCTS, ids=[path.stem for path in PRODUCTS])
def product(project: Project, request: pytest.FixtureRequest) -> Project:
    shutil.copy(request.param, project.directory / "compose.yaml")
    shutil.copy(FOLDER / "env", project.directory / ".env")
    shutil.copy(FOLDER / "db_password.txt", project.directory)
    project.env["PAPERS_TOKEN"] = "papers-token-1"
    return project


def written(project: Project) -> dict[str, Any]:
    """Return the compose file; below `x-test` it has its secrets, and some of what is public."""
    document: dict[str, Any] = yaml.safe_load((project.directory / "compose.yaml").read_text())
    return document


def stack_of(project: Project) -> tuple[Stack, io.StringIO]:
    stream = io.StringIO()
    console = Console(Redactor(), stdout=stream, stderr=stream, environ={})
    return Stack({}, directory=project.directory, environ=project.env, dry=True, console=console), stream


def test_it_is_listed_and_its_files_are_checked(product: Project) -> None:
    services = written(product)["services"]
    listed = product.inv("-l")
    assert listed.code == 0, listed
    assert {"up.all", *(f"up.{name}" for name in services)} == {
        word for line in listed.stdout.splitlines() for word in line.split()[:1] if word.startswith("up.")
    }
    checked = product.inv("perms.check", "--json").json()
    assert checked["root"] == str(product.directory)
    assert MASK not in str(checked)


def test_passwords_that_are_common_words_change_nothing_of_ours(project: Project) -> None:
    """Neither names, nor our own words, nor paths, nor the structure of JSON."""
    words = {
        "POSTGRES_PASSWORD": "shop",
        "ADMIN_TOKEN": "root",
        "APP_SECRET": "start",
        "KEY": "project",
        "PASS": "step",
    }
    project.services(**{"shop-db": plain(environment=words), "shop-api": plain(depends_on=["shop-db"])})
    shown = [project.inv("services.graph", *more) for more in ((), ("--json",), ("-s", "shop-apj"))]
    assert shown[0].stdout == "step 1\n  shop-db\nstep 2\n  shop-api  needs shop-db (started)\n"
    assert shown[1].json()["steps"] == [["shop-db"], ["shop-api"]]
    assert "did you mean 'shop-api'?" in shown[2].stderr
    checked = project.inv("perms.check")
    assert f"project root: {project.directory}" in checked.stdout
    assert MASK not in checked.stdout + checked.stderr


def test_it_is_drawn(product: Project) -> None:
    stack, stream = stack_of(product)
    names = list(stack.project.services)
    document = graph.document(stack.project, names)
    assert stack.redactor.document(document) == document
    assert sorted(name for step in document["steps"] for name in step) == sorted(names)
    for form in graph.FORMATS:
        drawn = graph.draw(stack.project, names, form)
        stream.truncate(stream.seek(0))
        stack.console.result(drawn)
        assert stream.getvalue() == f"{drawn}\n"
        assert all(name in drawn for name in names)
        assert form != "svg" or ElementTree.fromstring(drawn).tag.endswith("svg")


def test_its_start_and_its_reset_are_planned(product: Project) -> None:
    stack, stream = stack_of(product)
    project = stack.project
    volumes = tuple(Resource(each.name, each.name, project.name) for each in project.volumes.values())
    start = plan_start(project, list(project.services), Facts(containers={}))
    reset = decide(project, ProjectResources(volumes=volumes), "soft", list(project.services)).plan()
    for plan in (start, reset):
        stream.truncate(stream.seek(0))
        render.dry(stack, plan, json=False)
        assert stream.getvalue().splitlines() == [f"would {action}" for action in plan.actions]
        assert MASK not in stream.getvalue()
        stream.truncate(stream.seek(0))
        render.dry(stack, plan, json=True)
        planned = json.loads(stream.getvalue())
        assert planned["project"] == project.name
        assert [each["service"] for each in planned["plan"]] == [action.service for action in plan.actions]
    assert set(start.services()) == set(project.services)
    assert {each.name for each in project.volumes.values()} <= {action.service for action in reset.actions}


def test_its_secrets_are_masked_and_its_names_are_not(product: Project) -> None:
    stack, _ = stack_of(product)
    project, redactor, facts = stack.project, stack.redactor, written(product)["x-test"]
    log = "\n".join(
        f"{service.name} | {key}={value}, it said '{value}'"
        for service in project.services.values()
        for key, value in service.environment.items()
    )
    settings = "\n".join(json.dumps(service.raw) for service in project.services.values())
    files = "dB6-papers-file-19 papers-token-1" if project.secret_files else ""
    for text in (log, settings, files):
        shown = redactor.text(text)
        assert not [secret for secret in (*facts["secrets"], "papers-token-1") if secret in shown]
    names = [*project.services, *project.networks.values(), *(each.name for each in project.volumes.values())]
    for service in project.services.values():
        names += [service.image, service.raw.get("container_name") or service.name]
    for name in (*names, *facts["public"]):
        for text in (f'user "{name}"', f"{name}-1 is gone", f"in {name}: it failed", f"({name})"):
            assert redactor.text(text) == text
