"""Programs in containers, on a real engine: inside one, and in a helper on its network."""

from __future__ import annotations

import os

import pytest
from docker import APIClient
from support import IMAGE, Project

from stackhand.checks.errors import CannotAsk, NoAnswer
from stackhand.checks.exec import in_helper, inside
from stackhand.engine.api.client import Engine
from stackhand.engine.api.containers import Container
from stackhand.engine.api.helper import LABEL, Helper


@pytest.fixture
def web(project: Project) -> Container:
    """A container that runs."""
    project.services(web={"hostname": "web-itself"})
    project.compose("up", "-d", "--quiet-pull")
    (container,) = Engine(os.environ).containers(project.name)
    return container


@pytest.mark.mechanism
def test_what_runs_inside_and_in_a_helper(engine: APIClient, project: Project, web: Container) -> None:
    own = Engine(os.environ)
    script = ["sh", "-c", "hostname; echo $WORD; echo wrong >&2; exit 3"]
    for result in (
        inside(own, web, script, environment={"WORD": "hello"}),
        in_helper(own, web, IMAGE, script, environment={"WORD": "hello"}),
    ):
        assert (result.exit_code, result.stdout, result.last_error) == (3, "web-itself\nhello\n", "wrong")
    assert inside(own, web, ["no-such-program"]).not_found
    assert in_helper(own, web, IMAGE, ["no-such-program"]).not_found
    assert inside(own, web, ["sleep", "60"], timeout=0.5).exit_code is None
    assert in_helper(own, web, IMAGE, ["sleep", "60"], timeout=0.5).exit_code is None
    with pytest.raises(CannotAsk, match="no-such:1"):
        in_helper(own, web, "stackhand-test/no-such:1", ["true"])
    # A helper sees the addresses of the container, and none of its processes.
    address = next(iter(web.attachments.values())).address
    assert address in in_helper(own, web, IMAGE, ["ip", "addr"]).stdout
    assert engine.containers(all=True, filters={"label": f"{LABEL}=checks"}) == []

    project.compose("rm", "-sf")
    for run in (lambda: inside(own, web, ["true"]), lambda: in_helper(own, web, IMAGE, ["true"])):
        with pytest.raises(NoAnswer, match="has ended"):
            run()


def test_a_helper_with_nothing_but_what_it_is_given(web: Container) -> None:
    alone = Engine(os.environ).run_helper(Helper(IMAGE, ("cat", "/proc/net/dev"), "checks"))
    assert "eth0" not in alone.stdout
