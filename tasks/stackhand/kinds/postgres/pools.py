"""The pools of all PgBouncers of a server against the connections that it has."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial

from stackhand.checks.check import Fix, Verdict, fail, ok, warn
from stackhand.checks.context import CheckContext
from stackhand.kinds.postgres import pgbouncer_console
from stackhand.kinds.postgres.facts import Server, administered_servers
from stackhand.kinds.postgres.login_map import LoginMap, login_map
from stackhand.kinds.postgres.pgbouncer_facts import Bouncer, bouncer_facts

# Kept free for each service that connects directly: a worker or a one-shot has a few connections at a time.
_DIRECT = 2


def check_pools(context: CheckContext, service: str) -> Iterable[Verdict]:
    """Check that the pools of a running PgBouncer fit each server that it leads to."""
    facts = bouncer_facts(context, service)
    for name, server in administered_servers(context):
        pools = _pools(context, service, name, server, running=True)
        if pools and pools.count + pools.fixed:
            # It is set on the running console: no connection in use is ended.
            command = f"SET default_pool_size = {pools.fitting}"
            act = partial(pgbouncer_console.run_command, context, service, facts, command)
            # Each container has a console of its own, and one at a time is asked.
            alone = _count_running(context, service) == 1
            fix = Fix("make the pools smaller in", act) if alone else None
            yield evaluate_pools(facts, pools, name, server.available, fix)


def check_pools_in_file(context: CheckContext, service: str) -> Iterable[Verdict]:
    """Check that the pools of the file fit, too, where the console has been given another size."""
    facts = bouncer_facts(context, service)
    for name, server in administered_servers(context):
        pools = _pools(context, service, name, server, running=False)
        differs = facts.running and facts.setting("default_pool_size") != facts.in_file("default_pool_size")
        if pools and differs and pools.worst > pools.free:
            yield warn(
                f"its file has pools that are too large for {name}",
                f"they come to {pools.worst} connections and {pools.free} are free; the running ones fit",
                f"set default_pool_size = {max(1, pools.fitting)} in {facts.ini}, or raise max_connections",
            )


@dataclass(frozen=True)
class Pools:
    """The worst case of one PgBouncer on one server.

    `fixed` connections are in pools with a size of their own; `count` pools have `size` connections and `reserve` more.
    The server has `free` connections for all of them. https://www.pgbouncer.org/config.html#default_pool_size
    """

    fixed: int
    count: int
    size: int
    reserve: int
    free: int

    @property
    def worst(self) -> int:
        """The most connections that the pools can open."""
        return self.fixed + self.count * (self.size + self.reserve)

    @property
    def fitting(self) -> int:
        """The largest default_pool_size with which the pools fit; below 1 there is none."""
        return (self.free - self.fixed) // self.count - self.reserve if self.count else 0


def evaluate_pools(facts: Bouncer, pools: Pools, server: str, available: int, fix: Fix | None) -> Verdict:
    """Return the verdict about the size of the pools for one server, which has `available` connections."""
    worst = f"{pools.worst} connections at worst, {pools.free} of {available} are free for them"
    if pools.worst <= pools.free:
        return ok(f"its pools fit {server}: {worst}", subject=server)
    size = pools.fitting
    return fail(
        f"its pools are larger than what {server} has",
        f"{worst}; default_pool_size {pools.size}, reserve_pool_size {pools.reserve}",
        f"set default_pool_size = {size}" if size >= 1 else "make the pools smaller, or raise max_connections",
        subject=server,
        fix=fix if facts.administered and size >= 1 else None,
    )


def worst_case(
    service: str, login_map: LoginMap, available: int, replicas: Mapping[str, int], *, running: bool = True
) -> Pools:
    """Return the worst case of one PgBouncer on a server with `available` connections.

    Every user of a database has a pool of its own, and so has the role that looks up passwords. What other PgBouncers
    of the server may open is not free for this one. Without `running` the sizes are those of its file.
    """
    direct = {client for each in login_map.direct for client in each.clients} - set(login_map.bouncers)
    direct -= {client for each in login_map.pooled for client in each.clients}
    others = [_demand(name, login_map, replicas, running=True) for name in login_map.bouncers if name != service]
    taken = _DIRECT * len(direct) + sum(each.connections for each in others)
    own = _demand(service, login_map, replicas, running=running)
    return Pools(own.fixed, own.count, own.size, own.reserve, available - taken)


@dataclass(frozen=True)
class _Demand:
    """What one PgBouncer may open: `fixed` connections, and `count` pools of `size` and `reserve` each."""

    fixed: int
    count: int
    size: int
    reserve: int

    @property
    def connections(self) -> int:
        return self.fixed + self.count * (self.size + self.reserve)


def _demand(service: str, login_map: LoginMap, replicas: Mapping[str, int], *, running: bool) -> _Demand:
    """Return what all containers of a PgBouncer may open; one is assumed where their number is not known."""
    bouncer, containers = login_map.bouncers[service], replicas.get(service, 1)
    size, reserve = (_size(bouncer, name, running=running) for name in ("default_pool_size", "reserve_pool_size"))
    used = {
        (each.database, _user(bouncer, each.database, each.role)) for each in login_map.pooled if each.via == service
    }
    for entry in bouncer.databases.values():
        auth_user = bouncer.auth_user(entry)
        # A database also gets a pool for lookups as soon as a client uses it.
        if auth_user and any(database == entry.name for database, _ in used):
            used.add((entry.name, auth_user))
    sizes = [found.pool_size for database, _ in used if (found := bouncer.lookup(database))]
    own = [each for each in sizes if each is not None]
    return _Demand(containers * sum(each + reserve for each in own), containers * (len(used) - len(own)), size, reserve)


def _size(bouncer: Bouncer, name: str, *, running: bool) -> int:
    text = bouncer.setting(name) if running else bouncer.in_file(name)
    return int(text) if text.isdigit() else 0


def _user(bouncer: Bouncer, database: str, role: str) -> str:
    entry = bouncer.lookup(database)
    return entry.user if entry and entry.user else role


def _pools(context: CheckContext, service: str, name: str, server: Server, *, running: bool) -> Pools | None:
    """Return the worst case of a PgBouncer on one server, None where it does not lead there."""
    known = login_map(context, name)
    if service not in known.bouncers:
        return None
    replicas = {each: _count_running(context, each) for each in known.bouncers}
    return worst_case(service, known, server.available, replicas, running=running)


def _count_running(context: CheckContext, service: str) -> int:
    return sum(each.service == service and each.running for each in context.containers())
