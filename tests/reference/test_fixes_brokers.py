"""The fixes of the kinds redis, celery and http: the reference stack is broken, mended, and works afterwards."""

from __future__ import annotations

import json
import re
from typing import Any

from reference_stack import IMAGES, Reference
from shapes import FAST
from support import Project


def works(stack: Reference) -> None:
    """Assert that a text that is handed to the api is analysed by the worker, whose result the api gives."""
    script = """
import http.client, json, sys, time
def ask(method, path, body=None):
    c = http.client.HTTPConnection("127.0.0.1", 8000, timeout=10)
    c.request(method, path, body, {"Content-Type": "application/json"})
    return json.load(c.getresponse())
made = ask("POST", "/tasks", json.dumps({"text": "one two three"}))
for _ in range(100):
    task = ask("GET", "/tasks/" + made["id"])
    if task["celery"] == "SUCCESS":
        break
    time.sleep(0.1)
print(json.dumps(task))
"""
    task = json.loads(stack.compose("exec", "-T", "api", "python3", "-c", script))
    assert task["celery"] == "SUCCESS", task
    assert task["result"]["words"] == 3


def users(stack: Reference) -> dict[str, set[str]]:
    """Return the rules of each user, in no order: Redis lists categories as it likes."""
    lines = [line.split() for line in stack.redis("ACL", "LIST").splitlines()]
    return {words[1]: set(words[2:]) for words in lines}


def of(document: dict[str, Any], service: str) -> list[str]:
    return [each["finding"] for each in document["fixes"] if each["action"].partition(":")[0].endswith(f" {service}")]


def test_a_user_gone_from_memory_is_put_back(reference: Reference) -> None:
    before, whole = reference.identities(), users(reference)
    reference.redis("ACL", "SETUSER", "guest", "on", "nopass", "+ping")
    reference.redis("ACL", "DELUSER", "app")
    document = reference.fixes()
    assert "redis.login" in reference.fixed(document)
    assert reference.identities()["redis"] == before["redis"]
    assert users(reference).pop("app") - {"sanitize-payload"} == whole["app"] - {"sanitize-payload"}
    assert "guest" in users(reference)
    reference.redis("ACL", "DELUSER", "guest")
    works(reference)
    reference.is_whole()


def test_a_user_gone_from_the_file_as_well_comes_back_with_a_restart(reference: Reference) -> None:
    assert reference.redis("SET", "mark", "kept") == "OK"
    reference.redis("ACL", "DELUSER", "app")
    reference.redis("ACL", "SAVE")
    document = reference.fixes()
    assert "redis.reload" in reference.fixed(document)
    assert reference.redis("GET", "mark") == "kept"
    works(reference)
    reference.is_whole()


def test_another_password_is_put_right_and_rights_stay_narrowed(reference: Reference) -> None:
    reference.redis("ACL", "SETUSER", "app", "resetpass", ">another", "-setrange")
    # Whoever is logged in stays so; new connections are refused.
    document = reference.fixes()
    assert reference.fixed(document) == ["redis.login"]
    # As narrowed as it was found.
    assert "-setrange" in reference.redis("ACL", "LIST")
    reference.redis("ACL", "LOAD")
    works(reference)
    reference.is_whole()


def test_a_user_that_was_turned_off_is_told_and_left(reference: Reference) -> None:
    reference.redis("ACL", "SETUSER", "app", "off")
    try:
        plan = json.loads(reference.inv("--dry", "services.fixes", "--json", "-s", "redis").stdout)["plan"]
        assert plan == []
        document = reference.fixes("-s", "redis", code=1)
        # On a slow machine the healthcheck, which logs in as this user, may have failed by now: another finding.
        (finding,) = [each for each in document["findings"] if each["id"] == "redis.login" and each["status"] == "fail"]
        assert finding["remedy"].endswith("ACL SETUSER app on")
        assert document["fixes"] == []
    finally:
        reference.redis("ACL", "SETUSER", "app", "on")
    assert reference.inv("services.wait").code == 0
    reference.is_whole()


def test_memory_settings_are_told_with_the_setting(reference: Reference) -> None:
    reference.redis("ACL", "LOG", "RESET")
    reference.redis("CONFIG", "SET", "maxmemory", "0")
    reference.redis("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    document = reference.fixes()
    assert document["fixes"] == []
    remedies = [each["remedy"] for each in document["findings"] if each["id"] == "redis.memory"]
    assert len(remedies) == 2
    assert "`maxmemory 192mb`" in remedies[0]
    assert "`maxmemory-policy noeviction`" in remedies[1]
    reference.redis("CONFIG", "SET", "maxmemory", "128mb")
    reference.redis("CONFIG", "SET", "maxmemory-policy", "noeviction")
    reference.is_whole()
    # Nobody was asked for what he may not.
    assert reference.redis("ACL", "LOG") == ""


def test_a_worker_that_consumes_nothing_is_restarted(reference: Reference) -> None:
    before = reference.identities()
    reference.compose(
        "exec", "-T", "worker", "celery", "--app=aiworkflow.queue", "control", "cancel_consumer", "workflow"
    )
    document = reference.fixes()
    assert of(document, "worker") == ["celery.consumes"]
    after = reference.identities()
    assert [name for name in after if after[name] != before[name]] == ["worker"]
    works(reference)
    reference.is_whole()


def test_of_several_workers_only_the_deaf_one_is_restarted(reference: Reference) -> None:
    reference.compose("up", "-d", "--no-deps", "--no-recreate", "--scale", "worker=2", "worker")
    assert reference.inv("services.wait", "-s", "worker").code == 0
    first, second = reference.containers("worker")
    reference.docker(
        "exec", second["Id"], "celery", "--app=aiworkflow.queue", "control", "cancel_consumer", "workflow",
        f"--destination=worker@{second['Id'][:12]}",
    )  # fmt: skip
    document = reference.fixes("-s", "worker")
    assert reference.fixed(document) == ["celery.consumes"]
    now = {each["Id"]: each["State"]["StartedAt"] for each in reference.containers("worker")}
    assert now[first["Id"]] == first["State"]["StartedAt"]
    assert now[second["Id"]] != second["State"]["StartedAt"]
    reference.compose("up", "-d", "--no-deps", "--no-recreate", "--scale", "worker=1", "worker")
    reference.is_whole()


def test_warm_ups_in_the_words_of_each_kind(reference: Reference) -> None:
    settings = reference.directory / "invoke.yaml"
    given = settings.read_text()
    warm = {"redis": ["EXISTS rates", 'SET "a key" 1'], "api": ["/healthz"], "ollama": ["tinyllama"]}
    settings.write_text(f"{given}\nstackhand:\n  fixes:\n    warm: {json.dumps(warm)}\n")
    try:
        # The stand-in has no such model until it is pulled.
        document = reference.fixes(code=1)
        done = {each["action"].split()[1].rstrip(":"): each for each in document["fixes"]}
        assert set(done) == {"redis", "api", "ollama"}
        assert done["redis"]["ok"], done
        assert done["api"]["ok"], done
        assert re.search("tinyllama could not be loaded: .*not found", done["ollama"]["error"])
        reference.compose(
            "exec", "-T", "ollama", "curl", "-fsS", "http://127.0.0.1:11434/api/pull", "-d", '{"model": "tinyllama"}'
        )
        again = reference.fixes()
        assert [each["action"].split()[1].rstrip(":") for each in again["fixes"]] == ["ollama"]
        assert again["fixes"][0]["ok"], again["fixes"]
        loaded = reference.compose("exec", "-T", "ollama", "curl", "-fsS", "http://127.0.0.1:11434/api/ps")
        assert "tinyllama" in loaded
        assert reference.redis("GET", "a key") == "1"
        reference.is_whole()
    finally:
        settings.write_text(given)


SERVE = """
rm /bin/wget
mkdir -p /www/cgi-bin; echo well > /www/index.html
printf '#!/bin/sh\\nprintf "Status: 503 Down\\\\r\\\\n\\\\r\\\\nno database\\\\n"\\n' > /www/cgi-bin/down
chmod +x /www/cgi-bin/down
exec httpd -f -p 8000 -h /www
"""


def test_a_container_without_any_tool_is_asked_from_beside(reference: Reference, project: Project) -> None:
    def web(path: str) -> dict[str, Any]:
        probe = f"test -e /www/index.html # http://localhost:8000{path}"
        return {"command": ["sh", "-c", SERVE], "healthcheck": {"test": probe, "interval": "1s"}}

    beside = {"image": f"{IMAGES}-app", "command": ["sleep", "infinity"]}
    project.services(web=web("/index.html"), down=web("/cgi-bin/down"), beside=beside)
    assert project.inv("up", "--no-fixes").code == 0
    document = project.inv("services.fixes", "--json", env=FAST).json()
    found = {each["service"]: each for each in document["findings"] if each["id"] == "http.answers"}
    assert found["web"]["summary"] == "it answers as http (200)"
    assert found["down"]["summary"] == "it answers 503"
    assert found["down"]["evidence"].endswith("/cgi-bin/down: 503 no database")
    # With nothing beside that could ask, that is told, and is no failure.
    project.compose("rm", "-sf", "beside")
    alone = project.inv("services.fixes", "--json", "-s", "web", env=FAST).json()
    (finding,) = [each for each in alone["findings"] if each["id"] == "http.answers"]
    assert finding["status"] == "skip"
    assert alone["ok"]
