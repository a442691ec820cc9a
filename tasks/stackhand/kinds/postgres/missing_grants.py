"""Rights of the roles that clients use: what they lack, how sure that is, and the statements that give it back.

A right is given back on its own only where it is certain that it belongs to the role: configured in `fixes.roles`; or
the role had it when all was well, on the same data and with the same migrations applied; or nothing is remembered of
the role, default privileges for that very schema give it, and the role has nothing left there. Anything else may have
been taken away on purpose: that is a warning with the exact statement.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from stackhand.kinds.postgres.configured_grants import key
from stackhand.kinds.postgres.facts import Held, Rights, Role, Server
from stackhand.kinds.postgres.grant_history import Known, applied
from stackhand.kinds.postgres.psql import identifier

_WHAT = {"r": "TABLE", "S": "SEQUENCE", "f": "FUNCTION"}
_NOUNS = {"r": "tables", "S": "sequences", "f": "functions"}


class Lack(msgspec.Struct, frozen=True):
    """What a role lacks, as statements: those that are certain, those that are configured, and those that somebody
    may have meant so.
    """

    certain: tuple[str, ...] = ()
    configured: tuple[str, ...] = ()
    doubtful: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()


def missing_grants(
    server: Server, rights: Rights, role: Role, known: Known | None, configured: Sequence[str] = ()
) -> Lack:
    """Return what a role lacks in one database."""
    if role.superuser:
        return Lack()
    known = known if known and known.data == server.cluster.identifier else None
    same = known is not None and known.migrations == applied(server.migrations, rights.database)
    name = role.name
    certain: list[str] = []
    asked: list[str] = []
    doubtful: list[str] = []
    reasons: list[str] = []
    mine = [each for each in rights.held if each.role == name]
    empty = not mine and name not in rights.owners
    if name not in rights.connect:
        # Without any memory: a client that may not even enter its own database has lost that.
        sure = known is None or (same and known.connect)
        connect = f"GRANT CONNECT ON DATABASE {identifier(rights.database)} TO {identifier(name)}"
        (certain if sure else doubtful).append(connect)
        reasons.append(f"it may not connect to {rights.database}")
    # By default privileges, then by memory: what both say is said once.
    lost = [*_by_default(rights, name, known, same=same), *_by_memory(rights, name, known, same=same)]
    spaces = (
        {each.schema for each in mine}
        | {each.schema for each, _ in lost}
        | {each.schema for each in rights.defaults if each.role == name and each.schema}
    )
    spaces |= set(known.usage) & {each.name for each in rights.spaces} if known and same else set()
    for space in sorted(spaces):
        if name not in rights.space(space).usage:
            held = any(each.schema == space for each in mine)
            sure = (same and space in known.usage) if known else _is_bound(rights, name, space) and not held
            (certain if sure else doubtful).append(f"GRANT USAGE ON SCHEMA {space} TO {identifier(name)}")
            reasons.append(f"it may not use the schema {space}")
    for each, sure in lost:
        (certain if sure else doubtful).append(_grant(each))
        reasons.append(f"it lacks {', '.join(each.privileges)} on {_listed(each)}")
    if known and same:
        more = _on_schemas(known, rights, name) + _defaults(known, rights) + _memberships(known, role)
        (certain if empty else doubtful).extend(more)
        reasons += ["rights on schemas, default privileges or memberships are gone"] if more else []
    for grant in configured:
        if rights.configured.get(key(name, grant)) is False:
            asked.append(f"GRANT {grant} TO {identifier(name)}")
            reasons.append(f"fixes.roles gives it {grant}")
    return Lack(*(tuple(dict.fromkeys(each)) for each in (certain, asked, doubtful, reasons)))


def _is_bound(rights: Rights, name: str, schema: str) -> bool:
    """Return whether default privileges name this role for this very schema: that is no accident."""
    return any(each.role == name and each.schema == schema for each in rights.defaults)


def _by_default(rights: Rights, name: str, known: Known | None, *, same: bool) -> list[tuple[Held, bool]]:
    """Return what default privileges give and the role does not have, each with whether it is certain.

    They only say what is given to what will be made. So what the role had with these migrations decides. Where nothing
    is remembered of it at all, a loss is certain only when they are for this very schema, nothing is left in it, and no
    other role lacks the same: such things are older than the default privileges, or are meant to be closed.
    """
    left = {each.schema for each in rights.held if each.role == name}
    found: list[tuple[Held, bool]] = []
    for each in rights.missing:
        if each.role != name:
            continue
        if known is None and each.schema not in left and _is_bound(rights, name, each.schema):
            found.append((each, not _others_lack(rights, each)))
            continue
        had = tuple(thing for thing in each.names if known and same and _had(known, each, thing))
        others = tuple(thing for thing in each.names if thing not in had)
        found += [
            (msgspec.structs.replace(each, names=some), sure) for some, sure in ((had, True), (others, False)) if some
        ]
    return found


def _others_lack(rights: Rights, lost: Held) -> bool:
    """Return whether default privileges give another role the same things, and it does not have them either."""
    return any(
        each.role != lost.role and each.schema == lost.schema and set(each.names) & set(lost.names)
        for each in rights.missing
    )


def _by_memory(rights: Rights, name: str, known: Known | None, *, same: bool) -> list[tuple[Held, bool]]:
    """Return what the role had, has not, and no default privilege gives, each with whether it is certain."""
    left = {each.schema for each in rights.held if each.role == name}
    there = {(each.schema, each.kind): set(each.names) for each in rights.things}
    has = {
        (each.schema, each.kind, thing, privilege)
        for each in (*rights.held, *rights.missing)
        if each.role == name
        for thing in each.names
        for privilege in each.privileges
    }
    found: list[tuple[Held, bool]] = []
    for each in known.held if known else ():
        lost: dict[tuple[str, ...], list[str]] = {}
        for thing in each.names:
            gone = tuple(word for word in each.privileges if (each.schema, each.kind, thing, word) not in has)
            if gone and thing in there.get((each.schema, each.kind), ()):
                lost.setdefault(gone, []).append(thing)
        whole = each.schema not in left
        if whole or same:
            sure = whole and same
            found += [(Held(name, each.schema, each.kind, words, tuple(names)), sure) for words, names in lost.items()]
    return found


def _had(known: Known, each: Held, thing: str) -> bool:
    had = {
        word
        for one in known.held
        if (one.schema, one.kind) == (each.schema, each.kind) and thing in one.names
        for word in one.privileges
    }
    return had.issuperset(each.privileges)


def _defaults(known: Known, rights: Rights) -> list[str]:
    lost = [each for each in known.defaults if each not in rights.defaults]
    return [
        f"ALTER DEFAULT PRIVILEGES FOR ROLE {identifier(each.owner)}"
        f"{f' IN SCHEMA {each.schema}' if each.schema else ''} GRANT {', '.join(each.privileges)}"
        f" ON {_WHAT[each.kind]}S TO {identifier(each.role)}"
        for each in lost
    ]


def _on_schemas(known: Known, rights: Rights, name: str) -> list[str]:
    """Return what the role had on schemas beside USAGE."""
    found = []
    for space in rights.spaces:
        has = {*space.granted.get(name, ()), "USAGE"}
        lost = [word for word in known.granted.get(space.name, ()) if word not in has]
        found += [f"GRANT {', '.join(lost)} ON SCHEMA {space.name} TO {identifier(name)}"] if lost else []
    return found


def _memberships(known: Known, role: Role) -> list[str]:
    lost = [each for each in known.member_of if each not in role.member_of]
    return [f"GRANT {identifier(each)} TO {identifier(role.name)}" for each in lost]


def _grant(each: Held) -> str:
    things = ", ".join(f"{each.schema}.{name}" for name in each.names)
    return f"GRANT {', '.join(each.privileges)} ON {_WHAT[each.kind]} {things} TO {identifier(each.role)}"


def _listed(each: Held) -> str:
    shown = ", ".join(each.names[:3]) + (f" and {len(each.names) - 3} more" if len(each.names) > 3 else "")
    return f"the {_NOUNS[each.kind]} {shown} in {each.schema}"
