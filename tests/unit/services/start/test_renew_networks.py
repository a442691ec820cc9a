"""Networks that have to be replaced: when that is refused, and what is there again when Compose fails."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from builders import project, service

from stackhand.engine.api import resources
from stackhand.engine.api.resources import ContainerUse, ProjectResources, Resource
from stackhand.errors import CommandFailed, NetworkInUse, NetworkOutdated
from stackhand.services.changes import networks
from stackhand.services.changes.networks import NetworkFacts
from stackhand.services.start.renew_networks import NetworkRenewal

STACK = project(
    service("db", networks=("back",)),
    service("web", networks=("front",)),
    networks={"back": "shop_back", "front": "shop_front"},
)


class Compose:
    """Fails where it is told to, and remembers what it was asked to make."""

    def __init__(self, *, fails: bool = False) -> None:
        self.fails = fails
        self.made: list[str] = []

    def replaced_networks(self, names: object) -> list[str]:
        return ["shop_back"]

    def create(self, names: list[str], *, force: bool) -> None:
        self.made += names
        if self.fails:
            raise CommandFailed(["docker", "compose", "up"], 1, "Pool overlaps with other one on this address space")


def renewal(monkeypatch: pytest.MonkeyPatch, compose: Compose, *others: ContainerUse) -> NetworkRenewal:
    """Return the renewal of a stack whose network `back` has changed; `others` are containers that are not of it."""
    changed = NetworkFacts({}, frozenset({"back"}))
    there = ProjectResources(
        (ContainerUse("1", "shop-db-1", "shop", "db", networks=frozenset({"shop_back"})),), others=others
    )
    monkeypatch.setattr(networks, "collect", lambda *_: changed)
    monkeypatch.setattr(resources, "read", lambda *_: there)
    monkeypatch.setattr(resources, "definition", lambda engine, name: {"Name": name})
    engine: Any = SimpleNamespace(containers=lambda name: [])
    asked: Any = compose
    return NetworkRenewal(STACK, asked, engine)


def test_one_service_alone_does_not_replace_the_network_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    renew = renewal(monkeypatch, Compose())
    renew.refuse(["web"])
    with pytest.raises(NetworkOutdated, match="the definition of its network back changed, and db alone cannot follow"):
        renew.refuse(["web", "db"])


def test_a_strange_container_keeps_its_network(monkeypatch: pytest.MonkeyPatch) -> None:
    compose = Compose()
    strange = ContainerUse("2", "tool", running=True, networks=frozenset({"shop_back"}))
    with pytest.raises(NetworkInUse, match=r"tool \(.*\) is still on it, so it cannot be replaced") as raised:
        renewal(monkeypatch, compose, strange).renew(["db"])
    assert compose.made == []
    assert "docker network disconnect" in (raised.value.hint or "")


def test_where_compose_fails_the_old_network_is_there_again(monkeypatch: pytest.MonkeyPatch) -> None:
    restored: list[str] = []
    monkeypatch.setattr(resources, "networks", lambda engine: [Resource("id", "shop_front", "shop", {})])
    monkeypatch.setattr(resources, "restore_network", lambda engine, definition: restored.append(definition["Name"]))
    with pytest.raises(CommandFailed, match="Pool overlaps"):
        renewal(monkeypatch, Compose(fails=True)).renew(["db"])
    assert restored == ["shop_back"]
