"""Facts about the engine in, findings out."""

from __future__ import annotations

from dataclasses import replace

import pytest

from stackhand.engine.api.endpoint import Endpoint
from stackhand.errors import ComposeMissing, DockerMissing, EngineUnreachable, SocketPermission
from stackhand.install.check import Disk, Observation, evaluate, size

GIB = 1024**3
WELL = Observation(
    cli="/usr/bin/docker",
    endpoint=Endpoint("unix:///var/run/docker.sock", "default"),
    version="28.0.1",
    api="1.48",
    compose="2.30.0",
    disk=Disk("/var/lib/docker", used=20 * GIB, free=80 * GIB, total=100 * GIB),
)
NO_ENGINE = EngineUnreachable("no engine answers", "run `inv engine.install`")
BUILDS = {"cli": "ok", "answers": "ok", "compose": "ok"}


def statuses(seen: Observation) -> dict[str, str]:
    return {finding.id.removeprefix("engine."): finding.status for finding in evaluate(seen)}


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        (WELL, {"cli": "ok", "answers": "ok", "compose": "ok", "disk": "ok"}),
        (Observation(), {"cli": "fail", "answers": "skip", "compose": "skip"}),
        (
            Observation(cli="/usr/bin/docker", engine_error=NO_ENGINE, compose_error=ComposeMissing("none")),
            {"cli": "ok", "answers": "fail", "compose": "fail"},
        ),
        (
            replace(WELL, api="1.39"),
            {"cli": "ok", "answers": "ok", "version": "warn", "compose": "ok", "disk": "ok"},
        ),
        (replace(WELL, disk=None), {"cli": "ok", "answers": "ok", "compose": "ok"}),
        (
            replace(WELL, disk=Disk("/x", used=99 * GIB, free=GIB, total=100 * GIB)),
            {"cli": "ok", "answers": "ok", "compose": "ok", "disk": "warn"},
        ),
        (
            replace(WELL, disk=Disk("/x", used=2000 * GIB, free=90 * GIB, total=2090 * GIB)),
            {"cli": "ok", "answers": "ok", "compose": "ok", "disk": "warn"},
        ),
        (
            replace(WELL, warnings=("WARNING: No swap limit support",)),
            {"cli": "ok", "answers": "ok", "compose": "ok", "disk": "ok", "warning": "warn"},
        ),
        (replace(WELL, compose="2.40.3", buildx="0.29.1", disk=None), {**BUILDS, "buildx": "ok"}),
        (replace(WELL, compose="2.40.3", disk=None), {**BUILDS, "buildx": "warn"}),
    ],
)
def test_findings(seen: Observation, expected: dict[str, str]) -> None:
    assert statuses(seen) == expected


@pytest.mark.parametrize(
    ("compose", "buildx", "says"),
    [
        ("2.36.2", None, None),
        ("2.37.0", None, "with its old builder"),
        ("2.40.3-3", "0.29.1+ds1", None),
        ("2.40.3", "0.13.1", "0.17 or newer is needed"),
        ("5.0.1", None, "builds no image"),
    ],
)
def test_a_buildx_that_builds_need_is_a_warning(compose: str, buildx: str | None, says: str | None) -> None:
    seen = replace(WELL, compose=compose, buildx=buildx)
    found = [finding for finding in evaluate(seen) if finding.status != "ok"]
    assert [finding.id for finding in found] == ["engine.buildx"] * (says is not None)
    assert all(says in finding.summary and finding.fixable for finding in found if says)
    # Without builds, all is usable.
    assert seen.error is None


@pytest.mark.parametrize(
    ("seen", "error"),
    [
        (WELL, None),
        (Observation(), DockerMissing),
        (
            Observation(cli="d", engine_error=NO_ENGINE, compose_error=ComposeMissing("none")),
            EngineUnreachable,
        ),
        (Observation(cli="d", engine_error=SocketPermission("no")), SocketPermission),
        (replace(WELL, compose=None, compose_error=ComposeMissing("none")), ComposeMissing),
    ],
)
def test_the_first_missing_prerequisite(seen: Observation, error: type[Exception] | None) -> None:
    assert type(seen.error) is (error or type(None))
    assert seen.error is None or seen.error.exit_code == 3
    assert seen.to_json()["ok"] is (error is None)


def test_a_missing_engine_is_fixable_where_it_can_be_installed() -> None:
    finding = evaluate(Observation(cli="d", engine_error=NO_ENGINE))[1]
    assert finding.fixable
    assert finding.remedy == NO_ENGINE.hint
    far = evaluate(Observation(cli="d", engine_error=EngineUnreachable("no", "DOCKER_HOST chose it")))[1]
    assert not far.fixable


def test_the_document() -> None:
    document = WELL.to_json()
    assert document["ok"] is True
    assert document["engine"] == {
        "version": "28.0.1",
        "api": "1.48",
        "endpoint": "unix:///var/run/docker.sock",
        "source": "default",
    }
    assert document["compose"] == {"version": "2.30.0"}
    assert document["disk"] == {"path": "/var/lib/docker", "used": 20 * GIB, "free": 80 * GIB}
    assert {finding["phase"] for finding in document["findings"]} == {"engine"}


def test_sizes() -> None:
    assert size(0) == "0 B"
    assert size(1536) == "1.5 KiB"
    assert size(3 * 1024 * GIB) == "3072.0 GiB"
