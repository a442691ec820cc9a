"""What the checks of roles and rights read: a server, who connects to it, and what is configured for it."""

from __future__ import annotations

from dataclasses import dataclass

from stackhand.checks.context import CheckContext
from stackhand.kinds.postgres import grant_history
from stackhand.kinds.postgres.facts import POSTGRES, Server, server_facts
from stackhand.kinds.postgres.grant_history import GrantHistory
from stackhand.kinds.postgres.login_map import LoginMap, login_map
from stackhand.settings import Role as ConfiguredRole


@dataclass(frozen=True)
class Access:
    """One Postgres service with its facts, its clients, and its roles in `fixes.roles`."""

    context: CheckContext
    service: str
    server: Server
    login_map: LoginMap
    configured: dict[str, ConfiguredRole]

    @classmethod
    def load(cls, context: CheckContext, service: str) -> Access:
        """Return it for one service. Raises NoAnswer."""
        server = server_facts(context, service)
        return cls(context, service, server, login_map(context, service), configured_roles(context, service))

    def pairs(self) -> list[tuple[str, str]]:
        """Return each role with each database in which its rights are checked."""
        own = [(name, self.database_of(role)) for name, role in self.configured.items() if role.grants]
        return list(dict.fromkeys([*self.login_map.pairs(), *own]))

    def database_of(self, role: ConfiguredRole) -> str:
        """Return the database that a configured role's grants are for, "" where that cannot be told."""
        known = self.login_map.databases
        return role.database or (known[0] if len(known) == 1 else "")

    def history(self, role: str, database: str) -> GrantHistory | None:
        """Return what is remembered of a role in a database, None where the server has other data now."""
        found = grant_history.load(self.context, self.service, database, role)
        return found if found and found.data == self.server.cluster.identifier else None

    def execute(self, statements: list[str], database: str) -> None:
        """Run statements in one transaction. Raises StackError."""
        text = "".join(f"{each};\n" for each in statements)
        if text:
            self.server.administrator.execute(self.context, self.service, f"BEGIN;\n{text}COMMIT;", database)


def configured_roles(context: CheckContext, service: str) -> dict[str, ConfiguredRole]:
    """Return the roles of `fixes.roles` that belong to this server: it is named, or it is the only server."""
    alone = context.kinds.services(POSTGRES) == [service]
    return {
        name: role
        for name, role in context.settings.roles.items()
        if role.server == service or (alone and not role.server)
    }
