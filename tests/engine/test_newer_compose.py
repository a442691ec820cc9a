"""What newer versions of Compose and of the engine do: networks are replaced, providers, images with attestations."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import shapes
from shapes import needs_compose
from support import IMAGE, Project

# A provider speaks JSON lines on its stdout (https://docs.docker.com/compose/how-tos/provider-services/).
_PROVIDER = """#!/bin/sh
echo "$*" >> "{log}"
case "$*" in *" up "*)
  [ -e "{refuses}" ] && {{ echo '{{"type":"error","message":"no credit"}}'; exit 1; }}
  echo '{{"type":"setenv","message":"URL=https://db.example/"}}' ;;
esac
"""


def plain(**more: Any) -> dict[str, Any]:
    """Return a service that stays up until it is told to go."""
    return shapes.plain(**{"image": IMAGE, "stop_grace_period": "0s", **more})


def _on_networks(project: Project, version: str, size: str = "1", foreign: str = "") -> None:
    services: dict[str, Any] = {
        "db": plain(networks=["back"]),
        "api": plain(networks=["back", "front"], environment={"SIZE": size}),
        "web": plain(networks=["front"]),
    }
    project.write({"services": services, "networks": {"back": {"labels": {"version": version}}, "front": {}}})


def test_a_changed_network_is_replaced_under_all_services_on_it(project: Project) -> None:
    needs_compose(project, 2, 36)
    _on_networks(project, "1")
    assert project.inv("services.start", "--no-fixes").code == 0
    before = {name: project.container(name)["Id"] for name in ("db", "api", "web")}
    # Another change beside it, and only one service asked for.
    _on_networks(project, "2", size="2")
    planned = project.inv("--dry", "services.start", "-s", "api").stdout
    assert "would recreate db: the definition of its network back changed" in planned
    started = project.inv("services.start", "--no-fixes", "-s", "api")
    assert started.code == 0, started
    now = {name: project.container(name) for name in before}
    assert all(each["State"]["Running"] for each in now.values())
    assert [name for name in before if now[name]["Id"] != before[name]] == ["db", "api"]
    network = project.docker("network", "inspect", f"{project.name}_back", "--format", "{{.Labels.version}}")
    assert network.strip() == "2"
    # Compose itself leaves them without this name.
    assert project.compose("exec", "-T", "api", "ping", "-c1", "db")
    again = project.inv("--dry", "services.start").stdout
    assert "nothing to do" in again
    project.compose("up", "-d")
    assert project.container("db")["Id"] == now["db"]["Id"]


def test_a_network_that_another_container_is_on_stays_as_it_is(project: Project) -> None:
    needs_compose(project, 2, 36)
    _on_networks(project, "1")
    assert project.inv("services.start", "--no-fixes").code == 0
    before = {name: project.container(name)["State"]["StartedAt"] for name in ("db", "api", "web")}
    guest = f"{project.name}-guest"
    project.docker("run", "-d", "--rm", "--name", guest, "--network", f"{project.name}_back", IMAGE, "sleep", "600")
    try:
        _on_networks(project, "2", size="2")
        refused = project.inv("services.start", "--no-fixes")
    finally:
        project.docker("rm", "-f", guest)
    assert refused.code == 1
    assert guest in refused.stderr
    assert {name: project.container(name)["State"]["StartedAt"] for name in before} == before
    # What was refused has broken nothing.
    project.compose("up", "-d")
    assert set(project.states().values()) == {"running"}


def test_what_a_failed_replacement_has_detached_is_replaced_by_the_next_start(project: Project) -> None:
    needs_compose(project, 2, 36)
    _on_networks(project, "1")
    assert project.inv("services.start", "--no-fixes").code == 0
    _on_networks(project, "2", size="2")
    # Compose alone, for one of the two services, fails; and from then on for both.
    project.compose("create", "api", check=False)
    assert project.container("api")["NetworkSettings"]["Networks"].keys() == {f"{project.name}_front"}
    started = project.inv("services.start", "--no-fixes")
    assert started.code == 0, started
    assert project.compose("exec", "-T", "db", "ping", "-c1", "api")
    project.compose("up", "-d")


def test_a_network_that_cannot_be_made_leaves_the_old_one(project: Project) -> None:
    needs_compose(project, 2, 36)
    _on_networks(project, "1")
    assert project.inv("services.start", "--no-fixes").code == 0
    good = (project.directory / "compose.yaml").read_text()
    bad = good.replace("version: '1'", "version: '2'") + "\n"
    bad = bad.replace("back:\n    labels", "back:\n    driver: no-such-driver\n    labels")
    assert bad.count("no-such-driver") == 1
    (project.directory / "compose.yaml").write_text(bad)
    failed = project.inv("services.start", "--no-fixes")
    assert failed.code == 1
    assert "no-such-driver" in failed.stderr
    (project.directory / "compose.yaml").write_text(good)
    project.compose("up", "-d")
    assert set(project.states().values()) == {"running"}
    assert project.compose("exec", "-T", "api", "ping", "-c1", "db")


def test_a_provider_is_asked_once_and_goes_down_in_a_reset(project: Project, tmp_path: Path) -> None:
    needs_compose(project, 2, 36)
    log, refuses = tmp_path / "log", tmp_path / "refuses"
    program = tmp_path / "stackhand-test-provider"
    program.write_text(_PROVIDER.format(log=log, refuses=refuses))
    program.chmod(0o755)
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"

    def asked() -> list[str]:
        lines = log.read_text().splitlines() if log.exists() else []
        log.unlink(missing_ok=True)
        return [word for line in lines for word in line.split() if word in ("up", "down")]

    project.write(
        {
            "services": {
                "cloud": {"provider": {"type": program.name}},
                "web": plain(depends_on=["cloud"]),
            }
        }
    )
    refuses.touch()
    failed = project.inv("services.start", "--no-fixes", env={"PATH": path})
    assert failed.code == 1
    assert "cloud: its provider failed: no credit" in failed.stderr
    assert asked() == ["up"]
    refuses.unlink()

    started = project.inv("services.start", "--json", env={"PATH": path})
    assert started.code == 0, started
    assert {each["name"]: each["state"] for each in started.json()["services"]} == {
        "cloud": "running",
        "web": "running",
    }
    assert asked() == ["up"]
    assert "CLOUD_URL=https://db.example/" in project.container("web")["Config"]["Env"]
    assert project.inv("services.status", env={"PATH": path}).code == 0
    assert project.inv("services.start", env={"PATH": path}).code == 0
    assert "nothing to do" in project.inv("--dry", "services.start", env={"PATH": path}).stdout
    assert asked() == []
    assert project.inv("services.reset", "--full", "--yes", env={"PATH": path}).code == 0
    assert asked() == ["down", "up"]


def test_a_build_that_gives_the_same_renews_nothing(project: Project) -> None:
    store = project.docker("info", "--format", "{{json .DriverStatus}}")
    if "containerd" not in store:
        pytest.skip("only in containerd's image store does a build give another id each time")
    (project.directory / "Dockerfile").write_text(f"FROM {IMAGE}\nCOPY code /code\n")
    (project.directory / "code").write_text("1")
    project.write({"services": {"web": plain(image=f"{project.name}-web", build=".", pull_policy="build")}})
    # By Compose itself: with an attestation.
    project.compose("up", "-d")
    before = project.container("web")
    for _ in range(2):
        assert project.inv("services.start", "--no-fixes").code == 0
        assert project.container("web")["Id"] == before["Id"]
    assert "stackhand-before-build" not in project.docker("image", "ls", "--format", "{{.Tag}}")
    (project.directory / "code").write_text("2")
    assert project.inv("services.start", "--no-fixes").code == 0
    assert project.container("web")["Id"] != before["Id"]
