"""Entries that an auth_file lacks."""

from __future__ import annotations

from dataclasses import replace

import pytest
from postgres_facts import FIX, PGBOUNCER_FACTS

from stackhand.kinds.postgres.userlist import evaluate_missing_user


@pytest.mark.parametrize(
    ("writable", "administered", "auth_type", "fixable"),
    [
        (True, True, "scram-sha-256", True),
        (False, True, "scram-sha-256", False),
        (True, False, "scram-sha-256", False),
        (True, True, "plain", False),
    ],
)
def test_a_missing_entry(writable: bool, administered: bool, auth_type: str, fixable: bool) -> None:
    facts = replace(
        PGBOUNCER_FACTS,
        running={"auth_type": auth_type},
        userlist="/etc/userlist.txt",
        userlist_writable=writable,
        administered=administered,
    )
    finding = evaluate_missing_user(facts, "app", FIX)
    assert (finding.status, finding.fix is not None) == ("fail", fixable)
    assert 'the line "app" "VERIFIER"' in finding.remedy
