"""What a role lacks, and how certain that is."""

from __future__ import annotations

from typing import Any

import msgspec
from postgres_facts import ADMIN, ALL, DATA, HELD, OBJECTS, RIGHTS, known

from stackhand.kinds.postgres.facts import Cluster, Grant, Migrations, Rights, Role, SchemaInfo, Server
from stackhand.kinds.postgres.grant_history import GrantHistory
from stackhand.kinds.postgres.missing_grants import MissingGrants, missing_grants

APP = Role("app")


def lacking(rights: Rights, known: GrantHistory | None = None, role: Role = APP, **more: Any) -> MissingGrants:
    found = Server(ADMIN, cluster=Cluster(150000, DATA, roles=(role,)), rights={"shop": rights}, **more)
    return missing_grants(found, rights, role, known)


def test_who_has_all_its_rights_lacks_none() -> None:
    assert lacking(RIGHTS) == lacking(RIGHTS, known()) == MissingGrants()


PARTLY = msgspec.structs.replace(
    RIGHTS,
    held=(
        Grant("app", "public", "r", ("INSERT", "SELECT", "UPDATE"), ("results",)),
        Grant("app", "public", "r", ALL, ("tasks",)),
    ),
    missing=(Grant("app", "public", "r", ("DELETE",), ("results",)),),
)
NOTHING = msgspec.structs.replace(RIGHTS, held=(), missing=(HELD,))
DELETE = 'GRANT DELETE ON TABLE public.results TO "app"'
EVERYTHING = 'GRANT DELETE, INSERT, SELECT, UPDATE ON TABLE public.results, public.tasks TO "app"'
MIGRATED = (Migrations("shop", "public", "schema_migrations", ({"version": "2"},)),)


def test_a_part_that_was_never_there_may_be_meant_so() -> None:
    assert lacking(PARTLY).doubtful == (DELETE,)
    assert lacking(PARTLY).certain == ()


def test_a_part_that_was_there_is_given_back() -> None:
    assert lacking(PARTLY, known()).certain == (DELETE,)


def test_a_part_that_went_with_a_migration_may_be_meant_so() -> None:
    assert lacking(PARTLY, known(), migrations=MIGRATED).certain == ()
    assert lacking(PARTLY, known(), migrations=MIGRATED).doubtful == (DELETE,)


def test_what_is_remembered_of_other_data_does_not_count() -> None:
    assert lacking(PARTLY, msgspec.structs.replace(known(), data="of another volume")).certain == ()


def test_a_whole_loss_is_given_back() -> None:
    assert lacking(NOTHING).certain == (EVERYTHING,)
    assert lacking(NOTHING, known()).certain == (EVERYTHING,)


def test_a_whole_loss_that_came_with_a_migration_may_be_meant_so() -> None:
    for before in (RIGHTS, msgspec.structs.replace(RIGHTS, defaults=())):
        now = msgspec.structs.replace(
            NOTHING, defaults=before.defaults, missing=NOTHING.missing if before.defaults else ()
        )
        found = lacking(now, known(before), migrations=MIGRATED)
        assert (found.certain, found.doubtful) == ((), (EVERYTHING,))


def test_what_another_role_lacks_as_well_is_older_than_the_default_privileges() -> None:
    both = msgspec.structs.replace(NOTHING, missing=(HELD, msgspec.structs.replace(HELD, role="reader")))
    assert (lacking(both).certain, lacking(both).doubtful) == ((), (EVERYTHING,))
    assert lacking(both, known()).certain == (EVERYTHING,)


def test_without_default_privileges_only_a_whole_loss_is_given_back() -> None:
    before = msgspec.structs.replace(RIGHTS, defaults=())
    partly = msgspec.structs.replace(before, held=(Grant("app", "public", "r", ALL, ("tasks",)),))
    nothing = msgspec.structs.replace(before, held=())
    assert lacking(partly, known(before)).doubtful == (EVERYTHING.replace(", public.tasks", ""),)
    assert lacking(nothing, known(before)).certain == (EVERYTHING,)
    # A table that is gone has no rights to give.
    gone = msgspec.structs.replace(nothing, objects=())
    assert lacking(gone, known(before)) == MissingGrants()


def test_ways_in_are_given_back() -> None:
    shut = msgspec.structs.replace(RIGHTS, connect=(), schemas=(SchemaInfo("public"),))
    ways = ('GRANT CONNECT ON DATABASE "shop" TO "app"', 'GRANT USAGE ON SCHEMA public TO "app"')
    assert lacking(shut, known()).certain == ways
    # Nothing is remembered: who has its tables still may have been kept out of the schema on purpose.
    assert (lacking(shut).certain, lacking(shut).doubtful) == (ways[:1], ways[1:])
    assert lacking(msgspec.structs.replace(shut, held=(), missing=(HELD,))).certain == (*ways, EVERYTHING)
    # Something is remembered, of before a migration: that may have shut it.
    assert lacking(shut, known(), migrations=MIGRATED).certain == ()
    assert lacking(shut, known(), migrations=MIGRATED).doubtful == ways


def test_a_role_made_anew_gets_what_it_had() -> None:
    bare = Rights("shop", "migrator", schemas=(SchemaInfo("public"),), objects=OBJECTS)
    before = msgspec.structs.replace(known(), member_of=("readers",))
    assert lacking(bare, before).certain == (
        'GRANT CONNECT ON DATABASE "shop" TO "app"',
        'GRANT USAGE ON SCHEMA public TO "app"',
        EVERYTHING,
        'ALTER DEFAULT PRIVILEGES FOR ROLE "migrator" IN SCHEMA public GRANT DELETE, INSERT, SELECT, UPDATE ON TABLES '
        'TO "app"',
        'GRANT "readers" TO "app"',
    )


def test_a_superuser_needs_no_rights() -> None:
    assert lacking(NOTHING, role=Role("app", superuser=True)) == MissingGrants()


def test_what_a_global_default_privilege_gives_is_not_certain() -> None:
    """It applies to what is made after it; what lies in this schema may never have been the role's."""
    everywhere = msgspec.structs.replace(
        NOTHING, defaults=tuple(msgspec.structs.replace(each, schema="") for each in NOTHING.defaults)
    )
    assert lacking(everywhere).certain == ()
    assert lacking(everywhere).doubtful


def test_what_the_role_did_not_have_when_all_was_well_is_not_given() -> None:
    bare = msgspec.structs.replace(known(), held=(), usage=())
    assert lacking(NOTHING, bare).certain == ()
