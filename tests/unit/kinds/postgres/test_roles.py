"""Roles: which have to exist, what is wrong with one, and how it is repaired."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from builders import project, service
from postgres_facts import DENIED, FINE, FIX, LOGIN, POOLED, WRONG, server

from stackhand.errors import StackError
from stackhand.kinds.postgres import roles
from stackhand.kinds.postgres.facts import Role
from stackhand.kinds.postgres.login_attempts import Attempt
from stackhand.kinds.postgres.login_map import AuthQuery, Login, LoginMap
from stackhand.kinds.postgres.psql import Admin, superusers
from stackhand.kinds.postgres.roles import RequiredRole

OTHER = Login("app", "shop", "db", 5432, "", "another s3cr3t", ("worker",))


@pytest.mark.parametrize(
    ("known", "tried", "status", "fixable", "words"),
    [
        ([Role("app")], {LOGIN: Attempt()}, "ok", False, "it is there and may log in"),
        ([], {LOGIN: DENIED}, "fail", True, "is missing"),
        ([Role("app", login=False)], {LOGIN: Attempt("nologin")}, "fail", False, "may not log in"),
        ([Role("app", login=False, superuser=True)], {}, "fail", False, "may not log in"),
        ([Role("app", expired=True)], {LOGIN: DENIED}, "fail", False, "has expired"),
        ([Role("app")], {LOGIN: DENIED}, "fail", True, "another password"),
        ([Role("app", superuser=True)], {LOGIN: DENIED}, "fail", False, "another password"),
        ([Role("app")], {LOGIN: DENIED, OTHER: Attempt()}, "fail", False, "different passwords"),
        ([Role("app")], {LOGIN: DENIED, OTHER: DENIED}, "fail", False, "different passwords"),
        ([Role("app")], {LOGIN: Attempt("not_admitted", "no pg_hba.conf entry")}, "fail", False, "cannot log in"),
        ([Role("app")], {LOGIN: Attempt("no_database", "no such")}, "fail", False, "cannot log in"),
        # Told, and repaired, with the role's rights.
        ([Role("app")], {LOGIN: Attempt("no_connect", "permission denied")}, "ok", False, "it is there"),
    ],
)
def test_a_role(known: list[Role], tried: dict[Login, Attempt], status: str, fixable: bool, words: str) -> None:
    required = RequiredRole("app", ("api",), tuple(dict.fromkeys(each.password for each in tried)))
    finding = roles.evaluate_role(server(*known), required, tried, FIX)
    assert (finding.status, finding.fix is FIX) == (status, fixable)
    assert words in finding.summary
    assert "s3cr3t" not in repr(finding)


@pytest.mark.parametrize(
    ("required", "fixable"),
    [
        (RequiredRole("app", ("api",), ("s3cr3t",), made_with="s3cr3t"), True),
        # The secrets do not agree, or not all of them are known.
        (RequiredRole("app", ("api",), ("s3cr3t",), made_with="another"), False),
        (RequiredRole("app", ("api",), ("s3cr3t", "another"), made_with="s3cr3t"), False),
        (RequiredRole("app", ("api", "job"), ("s3cr3t",), unknown=("job",), made_with="s3cr3t"), False),
        (RequiredRole("app", ("api",), ("s3cr3t",)), False),
    ],
)
def test_of_a_superuser_only_a_password_that_all_agree_on_is_put_right(required: RequiredRole, fixable: bool) -> None:
    about = server(Role("app", superuser=True, fingerprint="x"))
    finding = roles.evaluate_role(about, required, {LOGIN: DENIED}, FIX)
    assert (finding.status, finding.fix is FIX) == ("fail", fixable)
    assert ("not done" in finding.remedy) is not fixable
    assert "s3cr3t" not in repr(finding) + repr(required)

    done: list[str] = []

    class Hand(Admin):
        def execute(self, *words: Any, **_: Any) -> Any:
            done.append(words[2])

        def set_password(self, *words: Any) -> None:
            done.append("password")

    about = msgspec.structs.replace(about, admin=Hand("app"))
    stage: Any = SimpleNamespace()
    if fixable:
        roles.repair(stage, "db", about, required, None)
        assert done[-1] == "password"
        assert not any("CREATE" in each or "ALTER" in each for each in done)
    else:
        with pytest.raises(StackError, match="app is left alone"):
            roles.repair(stage, "db", about, required, None)
        assert done == []


def test_the_superuser_that_the_database_is_made_with() -> None:
    login_map = LoginMap((LOGIN, Login("reader", "shop", "db", 5432, "", "r", ("api",))))
    made = [("app", "s3cr3t"), ("postgres", "s3cr3t")]
    found = {each.name: each.made_with for each in roles.required_roles(login_map, {}, made)}
    assert found == {"app": "s3cr3t", "reader": ""}
    assert roles.required_roles(login_map, {}, [*made, ("app", "another")])[0].made_with == ""
    raw = {"POSTGRES_USER": "app", "POSTGRES_PASSWORD": "s3cr3t"}
    stage: Any = SimpleNamespace(project=project(service("db", image="postgres:16", environment=raw)))
    assert set(superusers(stage, "db")) >= set(made)


def test_a_role_is_made_with_its_settings_or_not_at_all() -> None:
    text = roles.creation("app", ['ALTER ROLE "app" CONNECTION LIMIT 5;']).splitlines()
    assert (text[0], text[-1]) == ("BEGIN;", "COMMIT;")
    assert text[1].startswith("SELECT 'CREATE ROLE \"app\" LOGIN' WHERE NOT EXISTS")
    assert text[2] == 'ALTER ROLE "app" CONNECTION LIMIT 5;'


@pytest.mark.parametrize(("pooled", "says"), [(FINE, "it is there and may log in"), (WRONG, "it is there")])
def test_a_role_that_only_a_pgbouncer_logs_in_as(pooled: Attempt, says: str) -> None:
    finding = roles.evaluate_role(
        server(Role("app")), RequiredRole("app", ("api",), ("s3cr3t",)), {POOLED: pooled}, FIX
    )
    assert (finding.status, finding.summary) == ("ok", says)


def test_nothing_is_changed_in_a_copy() -> None:
    finding = roles.evaluate_role(server(recovery=True), RequiredRole("app", ("api",), ("x",)), {}, FIX)
    assert (finding.status, finding.fix is FIX) == ("fail", False)


def test_a_missing_role_whose_password_nobody_knows_is_for_a_person() -> None:
    assert not roles.evaluate_role(server(), RequiredRole("app", ("api",)), {}, FIX).fix
    assert roles.evaluate_role(server(), RequiredRole("reader", ("fixes.roles",)), {}, FIX).fix


def test_a_missing_superuser_is_not_made() -> None:
    assert not roles.evaluate_role(
        server(), RequiredRole("app", ("api",), ("s3cr3t",), made_with="s3cr3t"), {}, FIX
    ).fix


def test_a_verifier_is_compared_without_being_told() -> None:
    required = RequiredRole("lookup", ("pool",), verifier="SCRAM-SHA-256$4096:x")
    right = Role("lookup", fingerprint=roles.fingerprint("SCRAM-SHA-256$4096:x"))
    assert roles.evaluate_role(server(right), required, {}, FIX).status == "ok"
    wrong = roles.evaluate_role(server(Role("lookup", fingerprint="another")), required, {}, FIX)
    assert (wrong.status, wrong.fix is FIX) == ("fail", True)
    assert "SCRAM" not in repr(wrong)
    assert "SCRAM" not in repr(required)


def test_wanted_roles_are_those_of_clients_and_settings() -> None:
    auth_query = AuthQuery("pool", "lookup", "shop", "SELECT 1", "SCRAM-SHA-256$x")
    login_map = LoginMap((LOGIN, Login("lookup", "shop", "db", 5432, "", "", ("pool",))), auth_queries=(auth_query,))
    found = {each.name: each for each in roles.required_roles(login_map, {"reader": "r", "app": "s3cr3t"})}
    assert found["app"] == RequiredRole("app", ("api",), ("s3cr3t",))
    assert found["lookup"].verifier == "SCRAM-SHA-256$x"
    assert found["reader"] == RequiredRole("reader", ("fixes.roles",), ("r",))


def test_a_password_is_not_set_while_somebody_has_one_that_is_not_known() -> None:
    vault = Login("app", "shop", "db", 5432, "", "", ("api",))
    [required] = roles.required_roles(LoginMap((vault, Login("app", "shop", "db", 5432, "", "stale", ("report",)))), {})
    assert required.unknown == ("api",)
    found = roles.evaluate_role(server(Role("app")), required, {LOGIN: DENIED}, FIX)
    assert (found.status, found.fix is FIX) == ("fail", False)
    assert "api" in found.remedy


def test_a_database_made_on_demand_is_no_failure() -> None:
    tests = Login("app", "shop_test", "db", 5432, "", "s3cr3t", ("api",))
    required = RequiredRole("app", ("api",), ("s3cr3t",))
    found = roles.evaluate_role(
        server(Role("app")), required, {LOGIN: Attempt(), tests: Attempt("no_database", "no such")}, FIX
    )
    assert (found.status, found.fix is FIX) == ("warn", False)
    assert "shop_test" in found.summary
    assert found.remedy
