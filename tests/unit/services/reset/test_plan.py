"""What goes and what stays: facts in, the list out."""

from __future__ import annotations

from typing import Any

import pytest
from builders import project, service

from stackhand.engine.api.resources import ContainerUse, ProjectResources, Resource
from stackhand.engine.compose.project import Project, Volume
from stackhand.errors import VolumeInUse
from stackhand.services.reset.journal import Mode
from stackhand.services.reset.plan import Reset, decide

NAMELESS = "0123456789abcdef" * 4


def stack(**volumes: Volume) -> Project:
    def mounting(name: str, *keys: str, **more: Any) -> Any:
        entries = [{"type": "volume", "source": key, "target": f"/{key}"} for key in keys]
        return service(name, raw={"volumes": entries, **more.pop("raw", {})}, **more)

    return project(
        mounting("db", "data", "shared", image="postgres:16"),
        mounting("web", "cache", "shared", "kept", image="web"),
        volumes={
            **{key: Volume(f"shop_{key}") for key in ("data", "shared", "cache", "kept")},
            **volumes,
        },
    )


def seen(
    *volumes: Resource, containers: tuple[ContainerUse, ...] = (), others: tuple[ContainerUse, ...] = ()
) -> ProjectResources:
    return ProjectResources(containers, (Resource("n1", "shop_default", "shop"),), volumes, others)


def ours(key: str, **labels: str) -> Resource:
    return Resource(f"shop_{key}", f"shop_{key}", "shop", labels)


def verdict(made: Reset, name: str) -> tuple[bool, str]:
    item = next(each for each in made.items if each.name == name)
    return item.goes, item.reason


@pytest.mark.parametrize(
    ("volume", "mode", "goes", "reason"),
    [
        (ours("data"), "soft", False, "holds postgres data of db"),
        (ours("data"), "full", True, "holds postgres data of db"),
        (ours("shared"), "soft", False, "holds postgres data of db"),
        (ours("cache"), "soft", True, "of web, a cache by its place /cache"),
        (ours("cache", **{"stackhand.keep": "true"}), "soft", False, "label stackhand.keep=true"),
        (ours("cache", **{"stackhand.keep": "true"}), "full", True, "of web"),
        (ours("cache", **{"stackhand.keep": "false"}), "soft", True, "label stackhand.keep=false"),
        (ours("data", **{"stackhand.keep": "false"}), "soft", True, "label stackhand.keep=false"),
        (ours("data", **{"stackhand.keep": "FALSE"}), "soft", True, "label stackhand.keep=false"),
        (ours("data", **{"stackhand.keep": "no idea"}), "soft", False, "label stackhand.keep=true"),
        (ours("kept"), "soft", False, "of web, may hold data; label it stackhand.keep=false if not"),
        (ours("old"), "soft", False, "no service mounts it: what it holds is not known"),
        (ours("old"), "full", True, "no service mounts it"),
        (Resource("shop_cache", "shop_cache", "shop-2"), "full", False, "belongs to project shop-2"),
        (Resource("shop_cache", "shop_cache"), "full", False, "not made by Compose, whose it is is not known"),
    ],
)
def test_volumes(volume: Resource, mode: Mode, goes: bool, reason: str) -> None:
    assert verdict(decide(stack(), seen(volume), mode), volume.name) == (goes, reason)


def test_a_volume_of_several_kinds_names_whose_data_it_has() -> None:
    entries = {"volumes": [{"type": "volume", "source": "both", "target": "/both"}]}
    stack = project(
        service("cache", image="redis:8", raw=entries),
        service("store", image="postgres:17", raw=entries),
        service("copy", image="postgres:17", raw=entries),
        volumes={"both": Volume("shop_both")},
    )
    reason = "holds redis data of cache and postgres data of copy, store"
    assert verdict(decide(stack, seen(ours("both")), "soft"), "shop_both") == (False, reason)


def test_a_label_in_the_compose_file_counts_before_compose_has_put_it_on_the_volume() -> None:
    labelled = stack(cache=Volume("shop_cache", labels={"stackhand.keep": "true"}))
    assert verdict(decide(labelled, seen(ours("cache")), "soft"), "shop_cache")[0] is False


@pytest.mark.parametrize(("said", "stays"), [("false", False), ("true", True)])
def test_the_compose_file_says_more_than_an_older_label_on_the_volume(said: str, stays: bool) -> None:
    labelled = stack(cache=Volume("shop_cache", labels={"stackhand.keep": said}))
    before = ours("cache", **{"stackhand.keep": "false" if stays else "true"})
    assert verdict(decide(labelled, seen(before), "soft"), "shop_cache")[0] is not stays


@pytest.mark.parametrize("mode", ["soft", "full"])
def test_external_volumes_stay(mode: Mode) -> None:
    made = stack(cache=Volume("shop_cache", external=True))
    assert verdict(decide(made, seen(ours("cache")), mode), "shop_cache") == (False, "external")


def test_a_volume_in_use_by_somebody_else_is_refused() -> None:
    other = ContainerUse("o", "theirs-1", "theirs", volumes={"shop_cache": ""})
    for mode in ("soft", "full"):
        with pytest.raises(VolumeInUse, match=r"shop_cache is used by container theirs-1 of project theirs"):
            decide(stack(), seen(ours("cache"), others=(other,)), mode)  # type: ignore[arg-type]
    # What stays may be used by whoever likes.
    assert decide(stack(cache=Volume("shop_cache", external=True)), seen(ours("cache"), others=(other,)), "full")
    plain = ContainerUse("o", "by-hand", volumes={"shop_cache": ""})
    with pytest.raises(VolumeInUse, match="container by-hand of no Compose project"):
        decide(stack(), seen(ours("cache"), others=(plain,)), "soft")


@pytest.mark.parametrize(
    ("held", "mode", "goes", "nameless_go"),
    [
        (ContainerUse("c", "shop-web-1", "shop", "web"), "soft", True, True),
        (ContainerUse("c", "shop-db-1", "shop", "db"), "soft", False, False),
        (ContainerUse("c", "shop-db-1", "shop", "db"), "full", True, True),
        # A client that was run once goes; whether its volume holds data nobody knows.
        (ContainerUse("c", "shop-db-run", "shop", "db", one_off=True), "soft", True, False),
        (ContainerUse("c", "shop-old-1", "shop", "old"), "soft", True, False),
        (ContainerUse("c", "shop-old-1", "shop", "old"), "full", True, True),
    ],
)
def test_volumes_without_a_name(held: ContainerUse, mode: Mode, goes: bool, nameless_go: bool) -> None:
    container = ContainerUse(held.id, held.name, held.project, held.service, held.one_off, True, {NAMELESS: "/app/tmp"})
    made = decide(stack(), seen(Resource(NAMELESS, NAMELESS), containers=(container,)), mode)
    by_what = {item.what: item for item in made.items}
    assert by_what["container"].goes is goes
    assert by_what["volume"].goes is nameless_go
    assert by_what["container"].volumes is (goes and nameless_go)


@pytest.mark.parametrize(
    ("place", "written", "stays"),
    [
        ("/var/lib/frob", False, True),
        ("/var/lib/frob", True, True),
        ("/app/cache", False, False),
        ("/app/node_modules", True, False),
        # An image's own volume holds what its program keeps; one that the compose file itself mounts is scratch.
        ("/app/x", False, True),
        ("/app/x", True, False),
    ],
)
def test_a_volume_without_a_name_is_told_by_its_place(place: str, written: bool, stays: bool) -> None:
    mounts = [{"type": "volume", "target": place}] if written else []
    shop = project(service("web", image="web", raw={"volumes": mounts}))
    container = ContainerUse("c", "shop-web-1", "shop", "web", volumes={NAMELESS: place})
    made = decide(shop, seen(Resource(NAMELESS, NAMELESS), containers=(container,)), "soft")
    assert [item.goes for item in made.items if item.what in ("container", "volume")] == [not stays] * 2


def test_two_keys_of_one_name_are_one_volume() -> None:
    def both(**more: Any) -> Project:
        return stack(cache=Volume("shop_cache"), again=Volume("shop_cache", **more))

    assert verdict(decide(both(), seen(ours("cache")), "soft"), "shop_cache")[0]
    assert not verdict(decide(both(external=True), seen(ours("cache")), "full"), "shop_cache")[0]
    assert not verdict(decide(both(labels={"stackhand.keep": "true"}), seen(ours("cache")), "soft"), "shop_cache")[0]


def test_networks() -> None:
    assert verdict(decide(stack(), seen(), "soft"), "shop_default") == (True, "of this project")
    other = ContainerUse("o", "theirs-1", "theirs", networks=frozenset({"shop_default"}))
    made = decide(stack(), seen(others=(other,)), "full")
    assert verdict(made, "shop_default") == (False, "container theirs-1 of project theirs is on it")
    kept = ContainerUse("c", "shop-db-1", "shop", "db", volumes={NAMELESS: ""}, networks=frozenset({"shop_default"}))
    made = decide(stack(), seen(Resource(NAMELESS, NAMELESS), containers=(kept,)), "soft")
    assert verdict(made, "shop_default")[0] is False


def test_bind_mounts_are_listed_and_stay() -> None:
    entry = {"type": "bind", "source": "/srv/data", "target": "/data"}
    made = decide(
        project(service("web", raw={"volumes": [entry]}), service("api", raw={"volumes": [entry]})), seen(), "full"
    )
    assert verdict(made, "/srv/data") == (False, "of web, api")


def test_the_plan_has_all_of_it() -> None:
    made = decide(stack(), seen(ours("data"), ours("cache")), "soft", ["db", "web"])
    assert [str(action).partition(":")[0] for action in made.plan().actions] == [
        "remove network shop_default", "remove volume shop_cache", "keep volume shop_data", "start db", "start web",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("key", "targets", "goes"),
    [
        ("modules", ["/app/node_modules"], True),
        ("web_modules", ["/srv/web/node_modules/"], True),
        ("venv", ["/app/.venv"], True),
        ("pip", ["/root/.cache/pip"], True),
        ("build-cache", ["/app/.next/cache"], True),
        ("nginx", ["/var/cache/nginx"], True),
        ("scratch", ["/tmp/work"], True),
        ("php", ["/run/php", "/var/run/php"], True),
        ("sockets", ["/app/tmp", "/sockets"], True),
        ("static", ["/app/static", "/usr/share/nginx/html/static"], True),
        ("django_static", ["/app/staticfiles"], True),
        # A name alone is no proof, and neither is one of several places.
        ("redis-cache", ["/data"], False),
        ("cache", ["/app/cache", "/var/lib/search"], False),
        ("public", ["/app/static"], False),
        ("static", ["/app/static/uploads"], False),
        ("assets", ["/app/assets"], False),
        # What somebody calls data is data.
        ("data", ["/tmp/data"], False),
        ("pgdata", ["/var/run/pg"], False),
        ("uploads", ["/app/tmp"], False),
        # Well-known products, and some that nobody has heard of.
        ("vmail-vol-1", ["/var/vmail"], False),
        ("postfix-vol-1", ["/var/spool/postfix"], False),
        ("gpg_volume", ["/etc/passbolt/gpg"], False),
        ("wordpress", ["/var/www/html"], False),
        ("images", ["/var/www/html/images"], False),
        ("synapse", ["/data"], False),
        ("sonarr", ["/config"], False),
        ("trilium", ["/home/node/trilium-data"], False),
        ("whatever", ["/opt/acme/ledger"], False),
    ],
)
def test_only_what_is_surely_a_cache_goes(key: str, targets: list[str], goes: bool) -> None:
    users = [
        service(f"s{n}", raw={"volumes": [{"type": "volume", "source": key, "target": target}]})
        for n, target in enumerate(targets)
    ]
    made = decide(project(*users, volumes={key: Volume(f"shop_{key}")}), seen(ours(key)), "soft")
    assert verdict(made, f"shop_{key}")[0] is goes
