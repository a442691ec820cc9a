"""Networks: whose definition changed, who is on them, what keeps them, who lacks one."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from builders import container, ended, project, service

from stackhand.engine.api.containers import Attachment, Container
from stackhand.engine.api.resources import ContainerUse, ProjectResources, Resource
from stackhand.engine.compose.labels import HASH_LABEL, NETWORK_LABEL
from stackhand.engine.compose.parse import network_hash
from stackhand.services.changes import networks
from stackhand.services.changes.networks import NetworkFacts
from stackhand.services.start.decide import plan_start
from stackhand.services.start.facts import Facts, with_network_users

STACK = project(
    service("db", networks=("back",)),
    service("api", networks=("back", "front")),
    service("web", networks=("front",)),
    networks={"back": "shop_back", "front": "shop_front"},
    network_hashes={"back": "new", "front": "same"},
)


def made(key: str, hash: str | None, *, of: str = "shop", name: str = "") -> Resource:
    labels = {NETWORK_LABEL: key, **({HASH_LABEL: hash} if hash else {})}
    return Resource(f"id-{key}", name or f"shop_{key}", of, labels)


@pytest.mark.parametrize(
    ("found", "changed"),
    [
        ([made("back", "new"), made("front", "same")], set()),
        ([made("back", "old"), made("front", "same")], {"back"}),
        ([made("back", None)], set()),  # by an older Compose, which keeps it
        ([made("back", "old", of="other")], set()),
        ([made("back", "old", name="elsewhere")], set()),
        ([], set()),
    ],
)
def test_what_differs(found: Sequence[Resource], changed: set[str]) -> None:
    assert networks.differing(STACK, found) == changed


def test_the_hash_is_that_of_go() -> None:
    # As Compose 2.40 has written it.
    raw = {"name": "e28hash_n1", "ipam": {}, "labels": {"d": "do$llar", "v": "a<b>&c"}}
    assert network_hash({"name": "e28hash_n2", "ipam": {}}).startswith("3badfd81c4")
    assert network_hash(raw).startswith("2cb4592314")


def test_compose_itself_has_the_last_word() -> None:
    listed = [
        {
            "Id": "id-back",
            "Name": "shop_back",
            "Labels": {**made("back", "old").labels, "com.docker.compose.project": "shop"},
        }
    ]
    engine: Any = SimpleNamespace(api=SimpleNamespace(networks=lambda: listed))
    asked: list[Sequence[str]] = []

    def replaced(names: Sequence[str]) -> list[str]:
        asked.append(names)
        return ["shop_back"]

    assert networks.collect(engine, STACK, replaced) == NetworkFacts(
        {"shop_back": frozenset({"id-back"})}, frozenset({"back"})
    )
    assert asked == [["db", "api"]]
    assert networks.collect(engine, STACK, lambda names: []).changed == frozenset()


def use(name: str, of: str = "shop", service: str = "", **more: Any) -> ContainerUse:
    return ContainerUse(name, name, of, service, running=True, networks=frozenset({"shop_back"}), **more)


@pytest.mark.parametrize(
    ("there", "told"),
    [
        ([use("shop-db-1", service="db"), use("shop-api-1", service="api")], []),
        ([use("shop-web-1", service="web")], ["shop-web-1"]),  # attached by hand
        ([use("shop-old-1", service="old")], ["shop-old-1"]),
        ([use("shop-db-run-1", service="db", one_off=True)], ["shop-db-run-1"]),
        ([use("guest", of="")], ["guest (no Compose project)"]),
        ([use("x-db-1", of="x", service="db")], ["x-db-1 (project x)"]),
    ],
)
def test_what_keeps_a_network(there: list[ContainerUse], told: list[str]) -> None:
    found = ProjectResources(
        tuple(each for each in there if each.project == "shop"),
        others=tuple(each for each in there if each.project != "shop"),
    )
    assert networks.blockers(STACK, {"back"}, found) == told


def on(name: str, *places: str, id: str = "id-back", **more: Any) -> Container:
    attached = {place: Attachment("10.0.0.2", frozenset({name}), id) for place in places}
    return container(name, attachments=attached, networks=frozenset(places), **more)


IDS = NetworkFacts({"shop_back": frozenset({"id-back"}), "shop_front": frozenset({"id-back"})})


@pytest.mark.parametrize(
    ("there", "off"),
    [
        (on("db", "shop_back"), None),
        (on("db", "shop_back", id=""), None),  # it has not run yet
        (on("db"), "shop_back"),
        (on("db", "shop_back", id="removed"), "shop_back"),
    ],
)
def test_what_lacks_a_network(there: Container, off: str | None) -> None:
    assert networks.off_network(STACK, there, IDS) == off


def facts(*containers: Container, changed: str = "") -> Facts:
    there = {each.service: [each] for each in containers}
    return Facts(there, networks=NetworkFacts(IDS.ids, frozenset({changed} if changed else ())))


def test_a_start_of_one_service_renews_all_on_a_changed_network() -> None:
    seen = facts(on("db", "shop_back"), on("api", "shop_back", "shop_front"), on("web", "shop_front"), changed="back")
    wanted = with_network_users(STACK, ["db"], seen)
    assert wanted == ["db", "api"]
    plan = plan_start(STACK, wanted, seen)
    assert [(str(action), action.force) for action in plan.actions] == [
        ("recreate db: the definition of its network back changed", True),
        ("recreate api: the definition of its network back changed", True),
    ]
    assert with_network_users(STACK, ["web"], seen) == ["web"]


def test_what_does_not_run_is_renewed_but_not_started_for_others() -> None:
    stopped = ended("api", networks=frozenset({"shop_back"}))
    assert with_network_users(STACK, ["db"], facts(on("db", "shop_back"), stopped, changed="back")) == ["db"]


def test_only_what_is_stopped_is_renewed_because_it_lacks_a_network() -> None:
    assert plan_start(STACK, ["db"], facts(on("db"))).actions == ()  # a fix attaches it
    (action,) = plan_start(STACK, ["db"], facts(on("db", status="exited"))).actions
    assert (action.verb, action.force, action.cause) == ("recreate", True, "it is off its network shop_back")
