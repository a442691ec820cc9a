"""The post-startup fixes as a whole, on the reference stack."""

from __future__ import annotations

import json

from reference_stack import Reference

HEALTHY = 3.0


def test_on_a_healthy_stack_nothing_changes(reference: Reference) -> None:
    before = reference.identities()
    result = reference.inv("services.fixes")
    assert result.code == 0, result
    assert "nothing to fix" in result.stdout
    document = reference.fixes()
    assert document["fixes"] == []
    assert document["before"] == document["after"]
    assert {each["status"] for each in document["findings"]} <= {"ok", "skip"}
    assert reference.identities() == before


def test_a_dry_run_tells_what_a_run_would_do(reference: Reference) -> None:
    reference.compose("kill", "worker")
    plan = json.loads(reference.inv("--dry", "services.fixes", "--json").stdout)["plan"]
    assert [(each["service"], each["verb"]) for each in plan] == [("worker", "start")]
    document = reference.fixes()
    assert [each["action"] for each in document["fixes"]] == ["start worker: it is exited"]
    reference.is_whole()
