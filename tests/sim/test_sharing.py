"""Who shares a namespace with another container is never left in one that has gone, whatever renews that container."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from sim.services import Fake, Life, after, dies, lives, one_shot, plain
from sim.world import World, states

VPN = {
    "vpn": plain(),
    # Compose's own rule would not have it follow: it has an entry of its own in `depends_on`.
    "web": plain(network_mode="service:vpn", depends_on=after(vpn="started")),
    "files": plain(volumes_from=["vpn:ro"], depends_on=after(vpn="started")),
    "other": plain(),
}


def holds(world: World, name: str = "web", leader: str = "vpn") -> bool:
    """Return whether a service runs, and in the namespace that its leader has now."""
    mine, theirs = world.box(name), world.box(leader)
    assert theirs.started_at
    assert mine.started_at
    in_it = [other for what, other in mine.shares if what != "volumes"] == [theirs.id]
    return mine.running and in_it and mine.started_at >= theirs.started_at


def ids(world: World) -> dict[str, str]:
    return {box.service: box.id for box in world.boxes.values()}


def restart_by_hand(world: World) -> None:
    world.clock.sleep(5, lambda: False)
    world.compose.restart(["vpn"])
    world.clock.sleep(5, lambda: False)


@pytest.fixture
def shop(world: World) -> World:
    assert world.services(**VPN).start().ok
    assert holds(world)
    return world


@pytest.mark.parametrize(
    "happens",
    [
        pytest.param(restart_by_hand, id="somebody restarted it"),
        pytest.param(lambda world: world.kill("vpn"), id="it crashed"),
        pytest.param(lambda world: world.remove("vpn"), id="somebody removed it"),
    ],
)
@pytest.mark.parametrize("names", [[], ["vpn"], ["web"]])
def test_a_start_puts_right_what_has_lost_its_namespace(
    shop: World, names: list[str], happens: Callable[[World], Any]
) -> None:
    happens(shop)
    other = shop.box("other").run_key
    assert shop.start(*names).ok
    assert holds(shop)
    assert shop.box("other").run_key == other
    before = shop.fingerprint()
    assert not shop.start().changed
    assert shop.fingerprint() == before


@pytest.mark.parametrize("names", [[], ["vpn"]])
def test_a_new_container_takes_those_with_it_that_share_it(shop: World, names: list[str]) -> None:
    before = ids(shop)
    shop.services(**{**VPN, "vpn": plain(environment={"A": "2"})})
    assert shop.start(*names).ok
    assert holds(shop)
    now = ids(shop)
    assert {name for name in now if now[name] != before[name]} == {"vpn", "web", "files"}
    assert all(box.running for box in shop.boxes.values())
    assert not shop.start().changed


def test_a_restart_of_one_takes_the_others_with_it(shop: World) -> None:
    before = shop.fingerprint()
    restarted = shop.restart("vpn")
    assert restarted.report.ok
    assert holds(shop)
    # Volumes outlast the restart of their container.
    assert {box.service for box in shop.boxes.values() if before[box.name] != box.run_key} == {"vpn", "web"}


def test_a_changed_one_renews_the_others_in_a_restart(shop: World) -> None:
    shop.services(**{**VPN, "vpn": plain(environment={"A": "2"})})
    assert shop.restart().report.ok
    assert holds(shop)
    assert not shop.start().changed


@pytest.mark.parametrize("action", ["restart", "recreate", "start"])
def test_a_fix_of_one_takes_the_others_with_it(shop: World, action: str) -> None:
    if action == "start":
        shop.kill("vpn")
    getattr(shop.actions(), action)("vpn")
    assert holds(shop)
    assert all(box.running for box in shop.boxes.values())
    assert not shop.start().changed


def test_a_service_that_a_task_brings_up_takes_the_others_with_it(shop: World) -> None:
    shop.services(**{**VPN, "vpn": plain(environment={"A": "2"})})
    shop.begin()
    assert shop.up("vpn") == {"vpn": None}
    assert holds(shop)


def test_one_that_crashes_while_it_becomes_ready_takes_them_with_it(world: World) -> None:
    flaky = lives(dies(after=0.5), Life(), restart="no")
    world.services(vpn=flaky, web=plain(network_mode="service:vpn", depends_on=after(vpn="started")))
    assert world.start(retry_delay=1).ok
    assert holds(world)


def test_a_chain_of_them(world: World) -> None:
    chain: dict[str, Fake] = {
        "a": plain(),
        "b": plain(network_mode="service:a", depends_on=after(a="started")),
        "c": plain(pid="service:b", depends_on=after(b="started")),
    }
    assert world.services(**chain).start().ok
    world.kill("a")
    assert world.start("a").ok
    assert holds(world, "b", "a")
    assert holds(world, "c", "b")


def test_a_chain_whose_first_one_was_removed(world: World) -> None:
    """Compose is forced to make the second one again, and has to be for the third, too."""
    chain: dict[str, Fake] = {
        "a": plain(),
        "b": plain(network_mode="service:a", depends_on=after(a="started")),
        "c": plain(network_mode="service:b", depends_on=after(b="started")),
    }
    assert world.services(**chain).start().ok
    world.remove("a")
    assert world.start().ok
    assert holds(world, "b", "a")
    assert holds(world, "c", "b")
    assert not world.start().changed


@pytest.mark.parametrize("how", ["up", "restart", "recreate"])
def test_one_that_ends_with_the_namespace_is_started_again(world: World, how: str) -> None:
    """A process ends when the first process of its pid namespace does."""
    chain: dict[str, Fake] = {
        "a": plain(),
        "b": plain(network_mode="service:a", depends_on=after(a="started")),
        "c": plain(pid="service:b", depends_on=after(b="started")),
        "stopped": plain(pid="service:a", depends_on=after(a="started")),
    }
    assert world.services(**chain).start().ok
    world.signal(world.box("stopped"))
    if how == "up":
        world.services(**{**chain, "a": plain(environment={"A": "2"})})
        world.begin()
        assert world.up("a") == {"a": None}
    else:
        getattr(world.actions(), how)("a")
    assert holds(world, "b", "a")
    assert holds(world, "c", "b")
    assert not world.box("stopped").running, "that was so before"


def test_a_completed_one_shot_is_made_again_only_where_it_runs_again(shop: World) -> None:
    migrating = {
        **VPN,
        "migrate": one_shot(network_mode="service:vpn", depends_on=after(vpn="started")),
        "api": plain(depends_on=after(migrate="completed")),
    }
    assert shop.services(**migrating).start().ok
    shop.services(**{**migrating, "vpn": plain(environment={"A": "2"})})
    assert shop.start().ok
    shop.kill("api")
    report = shop.start()
    assert report.ok
    assert states(report)["migrate"] == "completed"
    assert shop.runs("api")
