"""Has networks whose definition changed replaced, together with the containers of all services on them.

`changes/networks.py` says why this takes one call of Compose for all of them, and new containers.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import suppress
from typing import Any

from stackhand.engine.api import resources
from stackhand.engine.api.client import Engine
from stackhand.engine.compose.cli import Compose
from stackhand.engine.compose.project import Project
from stackhand.errors import NetworkInUse, NetworkOutdated, StackError
from stackhand.services.changes import networks


class NetworkRenewal:
    """Replaces the networks of one project where a call of Compose would do so anyway."""

    def __init__(self, project: Project, compose: Compose, engine: Engine) -> None:
        self._project = project
        self._compose = compose
        self._engine = engine

    def changed(self) -> frozenset[str]:
        """Return the networks that Compose will replace, by their keys."""
        return networks.collect(self._engine, self._project, self._compose.replaced_networks).changed

    def affected(self, names: Collection[str]) -> list[str]:
        """Return the services that have to be renewed with these, because Compose would replace a network of theirs."""
        changed = self.changed()
        users = networks.users(self._project, changed)
        return users if not set(users).isdisjoint(self._project.closure(names)) else []

    def refuse(self, names: Collection[str]) -> None:
        """Raise NetworkOutdated if Compose, called for these services alone, would replace a network of theirs."""
        changed = self.changed() if names else frozenset()
        for name in names:
            mine = sorted(changed.intersection(self._project.services[name].networks))
            if mine:
                raise NetworkOutdated(
                    f"the definition of its network {mine[0]} changed, and {name} alone cannot follow",
                    "`inv services.start` renews all services on it",
                )

    def renew(self, names: Collection[str]) -> None:
        """Replace the networks that changed, with new containers for `names` and for all that have some on them.

        Raises NetworkInUse, before anything was touched, where a container that Compose does not know keeps a network
        from being removed; CommandFailed where Compose failed: then the old network is there again, with the
        containers that were on it.
        """
        changed = self.changed()
        found = resources.read(self._engine, self._project.name)
        blocking = networks.blockers(self._project, changed, found)
        if blocking:
            raise NetworkInUse(
                f"the definition of network {', '.join(sorted(changed))} changed, and {', '.join(blocking)} is still "
                "on it, so it cannot be replaced",
                f"stop {blocking[0].partition(' ')[0]}, or `docker network disconnect` it; then start again",
            )
        there = {container.service for container in found.containers if not container.one_off}
        users = [name for name in networks.users(self._project, changed) if name in there or name in names]
        before = {key: resources.definition(self._engine, self._project.networks[key]) for key in changed}
        self._attach(users)  # Compose fails on a container that an earlier failure has detached
        try:
            self._compose.create(users, force=True)
        except StackError:
            # Where this fails, too, the first error is the one that counts.
            with suppress(StackError):
                self._restore(before)
                self._attach(users)
            raise

    def _restore(self, before: Mapping[str, Mapping[str, Any]]) -> None:
        there = {network.name for network in resources.networks(self._engine)}
        for definition in before.values():
            if definition["Name"] not in there:
                resources.restore_network(self._engine, definition)

    def _attach(self, names: Collection[str]) -> None:
        """Attach those containers of these services that do not run and are off their networks."""
        facts = networks.collect(self._engine, self._project, lambda names: ())
        containers = self._engine.containers(self._project.name)
        for container in containers:
            idle = container.service in names and not container.running
            if idle and networks.off_network(self._project, container, facts):
                networks.connect(self._engine, self._project, container, containers)
