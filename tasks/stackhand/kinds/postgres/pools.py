"""The pools of all PgBouncers of a server against the connections that it has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from stackhand.kinds.postgres.logins import Links
from stackhand.kinds.postgres.pgbouncer_facts import Bouncer

# Kept free for each service that connects directly: a worker or a one-shot has a few connections at a time.
_DIRECT = 2


@dataclass(frozen=True)
class Pools:
    """The worst case of one PgBouncer: `fixed` connections of pools with a size of their own, and `count` pools of
    the default size; each has `reserve` more. `free` is what the server has for them.
    """

    fixed: int
    count: int
    size: int
    reserve: int
    free: int

    @property
    def worst(self) -> int:
        """The most connections that they can come to."""
        return self.fixed + self.count * (self.size + self.reserve)

    @property
    def fitting(self) -> int:
        """The largest default_pool_size with which they fit; below 1 there is none."""
        return (self.free - self.fixed) // self.count - self.reserve if self.count else 0


def pools(service: str, links: Links, available: int, replicas: Mapping[str, int], *, running: bool = True) -> Pools:
    """Return the worst case of one PgBouncer on a server with `available` connections.

    Every user of a database has a pool of its own, and so has the role that looks up passwords. What other PgBouncers
    of the server may come to is not free for this one. Without `running` the sizes are those of its file.
    """
    direct = {client for each in links.direct for client in each.clients} - set(links.bouncers)
    direct -= {client for each in links.pooled for client in each.clients}
    others = sum(
        _demand(name, links, bouncer, replicas.get(name, 1), running=True)[0]
        for name, bouncer in links.bouncers.items()
        if name != service
    )
    bouncer = links.bouncers[service]
    _, fixed, count = _demand(service, links, bouncer, replicas.get(service, 1), running=running)
    size, reserve = _sizes(bouncer, running=running)
    return Pools(fixed, count, size, reserve, available - _DIRECT * len(direct) - others)


def _sizes(bouncer: Bouncer, *, running: bool) -> tuple[int, int]:
    def read(name: str) -> int:
        text = bouncer.setting(name) if running else bouncer.in_file(name)
        return int(text) if text.isdigit() else 0

    return read("default_pool_size"), read("reserve_pool_size")


def _demand(service: str, links: Links, bouncer: Bouncer, replicas: int, *, running: bool) -> tuple[int, int, int]:
    """Return the whole worst case, the part of pools with a size of their own, and how many have the default size."""
    size, reserve = _sizes(bouncer, running=running)
    used = {(each.database, _user(bouncer, each.database, each.role)) for each in links.pooled if each.via == service}
    for mapped in bouncer.databases.values():
        auth_user = bouncer.auth_user(mapped)
        # A database that nobody is known to use still has its pool for lookups as soon as somebody does.
        if auth_user and any(database == mapped.name for database, _ in used):
            used.add((mapped.name, auth_user))
    sizes = [found.pool_size for database, _ in used if (found := bouncer.leads(database))]
    own = [each for each in sizes if each is not None]
    fixed = replicas * sum(each + reserve for each in own)
    count = replicas * (len(used) - len(own))
    return fixed + count * (size + reserve), fixed, count


def _user(bouncer: Bouncer, database: str, role: str) -> str:
    mapped = bouncer.leads(database)
    return mapped.user if mapped and mapped.user else role
