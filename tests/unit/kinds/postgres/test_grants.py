"""The verdicts about rights."""

from __future__ import annotations

import msgspec
from postgres_facts import FIX, OBJECTS, RIGHTS, server

from stackhand.kinds.postgres import grants
from stackhand.kinds.postgres.facts import Rights, Role
from stackhand.kinds.postgres.missing_grants import MissingGrants


def test_findings_about_rights() -> None:
    about = server(Role("app"))

    def judged(rights: Rights, lack: MissingGrants) -> tuple[str, bool]:
        verdict = grants.evaluate_grants(about, rights, Role("app"), lack, FIX)
        return verdict.status, verdict.fix is FIX

    assert judged(RIGHTS, MissingGrants()) == ("ok", False)
    assert judged(RIGHTS, MissingGrants(certain=("GRANT x",))) == ("fail", True)
    assert judged(RIGHTS, MissingGrants(configured=("GRANT x",))) == ("fail", True)
    assert judged(RIGHTS, MissingGrants(doubtful=("GRANT x",))) == ("warn", False)
    bare = Rights("shop", "migrator", ("app",), objects=OBJECTS, closed=True)
    assert judged(bare, MissingGrants()) == ("warn", False)
    # Its tables are an extension's only, or everybody may use some of them.
    assert judged(msgspec.structs.replace(bare, closed=False), MissingGrants()) == ("ok", False)
    assert judged(msgspec.structs.replace(bare, owners=("app",)), MissingGrants()) == ("ok", False)
