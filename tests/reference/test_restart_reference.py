"""Restart and reset of the reference stack: what is in Postgres and Redis is there afterwards."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from typing import Any

import pytest
from docker import APIClient
from reference_stack import Reference
from shapes import moment

pytestmark = pytest.mark.xdist_group("restarted-reference")
APP = {"migrate", "api", "worker"}


@pytest.fixture(scope="module")
def stack(engine: APIClient, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reference]:
    """The stack, started, with images that nobody else has: these tests change what they are built from."""
    folder = tmp_path_factory.mktemp("restarted") / "stack"
    made = Reference.prepare(folder, f"sh-restart-{secrets.token_hex(3)}", engine, own_images=True)
    try:
        made.up()
        made.sql("CREATE TABLE kept (what text)")
        yield made
    finally:
        made.remove()


def restart(stack: Reference, *words: str) -> dict[str, Any]:
    result = stack.inv("services.restart", "--json", *words, timeout=480)
    assert result.code == 0, result
    stack.keeps_secrets(result)
    document: dict[str, Any] = result.json()
    return document


def write(stack: Reference, what: str) -> None:
    stack.sql(f"INSERT INTO kept VALUES ('{what}')")
    assert stack.redis("set", "kept", what) == "OK"


def is_there(stack: Reference, what: str) -> None:
    assert what in stack.sql("SELECT what FROM kept").splitlines()
    assert stack.redis("get", "kept") == what


def test_code_that_three_services_share(stack: Reference) -> None:
    write(stack, "before the restart")
    before = stack.identities()
    assert restart(stack)["changed"] == []
    assert stack.identities() == before
    code = stack.directory / "app/aiworkflow/api.py"
    code.write_text(code.read_text() + "\n# changed\n")
    document = restart(stack)
    assert {each["service"] for each in document["changed"]} == APP
    now = stack.identities()
    assert {name for name in now if now[name] != before[name]} == APP
    for service in ("api", "worker"):
        assert moment(stack.container(service)) >= moment(stack.container("migrate"), "FinishedAt")
    is_there(stack, "before the restart")
    assert document["findings"]
    quick = stack.inv("services.restart")
    assert "nothing changed" in quick.stdout, quick
    assert quick.elapsed < 20, "the healthchecks' intervals would be waited for"


def test_a_changed_secret_and_who_follows(stack: Reference) -> None:
    write(stack, "before the secret")
    before = stack.identities()
    # The same password, written anew: what counts is that it was written.
    secret = stack.directory / "secrets/redis_admin_password.txt"
    new = secret.with_suffix(".new")
    new.write_bytes(secret.read_bytes())
    new.chmod(secret.stat().st_mode)
    os.chown(new, secret.stat().st_uid, secret.stat().st_gid)
    new.replace(secret)
    document = restart(stack)
    assert [each["service"] for each in document["changed"]] == ["redis"]
    now = stack.identities()
    assert {name for name in now if now[name] != before[name]} == {"redis", "worker"}
    assert {name for name in now if now[name][0] != before[name][0]} == set(), "nothing was made anew"
    is_there(stack, "before the secret")


def test_soft_reset(stack: Reference) -> None:
    write(stack, "before the reset")
    before = stack.identities()
    result = stack.inv("services.reset", "--soft", "--yes", "--json", timeout=480)
    assert result.code == 0, result
    stack.keeps_secrets(result)
    document = result.json()
    kept = {each["name"]: each["reason"] for each in document["kept"] if each["what"] == "volume"}
    assert set(kept) == {f"{stack.name}_{key}" for key in ("postgres-data", "redis-data", "models", "ca", "tls")}
    assert "holds postgres data" in kept[f"{stack.name}_postgres-data"]
    assert not {each for each, _ in before.values()} & {each for each, _ in stack.identities().values()}
    is_there(stack, "before the reset")
    stack.is_whole()


def test_full_reset(stack: Reference) -> None:
    result = stack.inv("services.reset", "--full", "--yes", "--json", timeout=480)
    assert result.code == 0, result
    assert {each["what"] for each in result.json()["removed"]} == {"container", "network", "volume"}
    assert result.json()["kept"] == []
    assert stack.sql("SELECT count(*) FROM pg_tables WHERE tablename = 'kept'") == "0"
    assert stack.redis("exists", "kept") == "0"
    stack.is_whole()
