"""Facts in, actions out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from builders import HASH, IMAGE_ID, container, ended, graph, healthy, needs, project, service

from stackhand.engine.api.containers import Container
from stackhand.engine.compose.project import Project
from stackhand.services.start.decide import plan_alone, plan_start
from stackhand.services.start.decide_again import followers, plan_retry, replan
from stackhand.services.start.facts import Facts
from stackhand.services.start.record import Failure, Record

WEB = project(service("web"))
DONE = "service_completed_successfully"
MIGRATE = project(service("db"), service("migrate", "db"), service("api", needs("migrate", DONE)))


def facts(stack: Project, *containers: Container, **more: Any) -> Facts:
    """Return facts in which every image is here and every container is as configured, unless named."""
    by_service: dict[str, list[Container]] = {}
    for each in containers:
        by_service.setdefault(each.service, []).append(each)
    images: dict[str, str | None] = {each.image: IMAGE_ID for each in stack.services.values()}
    images.update(more.pop("images", {}))
    return Facts(by_service, dict.fromkeys(stack.services, HASH), images)


def planned(stack: Project, known: Facts, names: Sequence[str] = (), **more: Any) -> list[str]:
    plan = plan_start(stack, names or list(stack.services), known, **more)
    assert all(action.cause for action in plan.actions)
    return [f"{action.verb} {action.service}" for action in plan.actions]


@pytest.mark.parametrize(
    ("containers", "action"),
    [
        ([container()], []),
        ([healthy()], []),
        ([], ["create web"]),
        ([container(status="created")], ["start web"]),
        ([ended(code=0)], ["start web"]),
        ([ended(code=1)], ["start web"]),
        ([container(status="paused")], ["start web"]),
        ([container(status="restarting")], ["start web"]),
        ([container(status="dead")], ["start web"]),
        ([healthy(health="starting")], ["check web"]),
        ([healthy(health="unhealthy")], ["check web"]),
        ([container(config_hash="of yesterday")], ["recreate web"]),
        ([ended(config_hash="of yesterday")], ["recreate web"]),
        ([container(image_id="sha256:old")], ["recreate web"]),
        ([container(), container(number=2)], ["recreate web"]),
    ],
)
def test_one_service(containers: list[Container], action: list[str]) -> None:
    assert planned(WEB, facts(WEB, *containers)) == action


@pytest.mark.parametrize(
    ("more", "here", "rebuild", "action"),
    [
        ({}, None, False, ["pull web", "create web"]),
        ({}, IMAGE_ID, False, ["create web"]),
        ({"pull_policy": "always"}, IMAGE_ID, False, ["pull web", "create web"]),
        ({"pull_policy": "never"}, None, False, ["create web"]),
        ({"builds": True}, None, False, ["build web", "create web"]),
        ({"builds": True}, IMAGE_ID, False, ["create web"]),
        ({"builds": True}, IMAGE_ID, True, ["build web", "create web"]),
        ({"builds": True, "pull_policy": "build"}, IMAGE_ID, False, ["build web", "create web"]),
        ({}, IMAGE_ID, True, ["create web"]),
    ],
)
def test_images(more: dict[str, Any], here: str | None, rebuild: bool, action: list[str]) -> None:
    stack = project(service("web", **more))
    assert planned(stack, facts(stack, images={"image/web": here}), rebuild=rebuild) == action


def test_an_image_is_got_once_for_all_that_use_it() -> None:
    stack = project(service("api", image="shared"), service("worker", image="shared"))
    assert planned(stack, facts(stack, images={"shared": None})) == ["pull api", "create api", "create worker"]


@pytest.mark.parametrize(
    ("replicas", "containers", "action"),
    [
        (2, [container(), container(number=2)], []),
        (2, [container()], ["recreate web"]),
        (2, [container(), ended(number=2)], ["start web"]),
        (2, [container(), container(number=2, config_hash="old")], ["recreate web"]),
        (2, [healthy(), healthy(number=2, health="starting")], ["check web"]),
        (0, [], []),
    ],
)
def test_replicas(replicas: int, containers: list[Container], action: list[str]) -> None:
    stack = project(service("web", replicas=replicas))
    assert planned(stack, facts(stack, *containers)) == action


@pytest.mark.parametrize(
    ("containers", "named", "actions"),
    [
        # All as it should be: the one-shot has done its work.
        ([healthy("db"), ended("migrate"), container("api")], [], []),
        # What waits for it starts: it runs again, before.
        ([healthy("db"), ended("migrate"), ended("api")], [], ["start migrate", "start api"]),
        ([healthy("db"), ended("migrate")], [], ["start migrate", "create api"]),
        ([healthy("db"), ended("migrate"), container("api", config_hash="old")], [], ["start migrate", "recreate api"]),
        # Only what it needs itself starts: no reason to run it again.
        ([ended("db"), ended("migrate"), container("api")], [], ["start db"]),
        # It failed, or never ran, or is of yesterday.
        ([healthy("db"), ended("migrate", code=3), container("api")], [], ["start migrate"]),
        ([healthy("db"), container("migrate", status="created"), container("api")], [], ["start migrate"]),
        ([healthy("db"), ended("migrate", config_hash="old"), container("api")], [], ["recreate migrate"]),
        ([healthy("db"), ended("migrate", image_id="old"), container("api")], [], ["recreate migrate"]),
        # Somebody asks for it.
        ([healthy("db"), ended("migrate"), container("api")], ["migrate"], ["start migrate"]),
        ([healthy("db"), ended("migrate"), container("api")], ["api"], []),
    ],
)
def test_one_shots(containers: list[Container], named: list[str], actions: list[str]) -> None:
    assert planned(MIGRATE, facts(MIGRATE, *containers), named=named) == actions


def test_a_chain_of_one_shots_runs_again_from_its_beginning() -> None:
    stack = project(service("first"), service("second", needs("first", DONE)), service("api", needs("second", DONE)))
    known = facts(stack, ended("first"), ended("second"), ended("api"))
    assert planned(stack, known) == ["start first", "start second", "start api"]


def test_the_order_is_that_of_dependencies() -> None:
    stack = graph({"proxy": ["api"], "api": ["db", "cache"], "cache": [], "db": []})
    actions = planned(stack, facts(stack))
    assert sorted(actions[:2]) == ["create cache", "create db"]
    assert actions[2:] == ["create api", "create proxy"]


def test_only_what_was_asked_for() -> None:
    stack = graph({"proxy": ["api"], "api": ["db"], "db": []})
    assert planned(stack, facts(stack), ["db", "api"]) == ["create db", "create api"]


@pytest.mark.parametrize(
    ("recreated", "restarted"),
    [
        ({"db"}, ["api"]),
        ({"db", "api"}, []),
        ({"cache"}, []),
        (set(), []),
    ],
)
def test_restarts_that_follow_a_recreation(recreated: set[str], restarted: list[str]) -> None:
    stack = project(
        service("db"),
        service("cache"),
        service("api", needs("db", restart=True), needs("cache")),
        service("other", needs("db")),
    )
    actions = followers(stack, list(stack.services), recreated)
    assert [action.service for action in actions] == restarted
    assert all(action.verb == "restart" and "db" in action.cause for action in actions)


def test_planning_twice_gives_the_same() -> None:
    known = facts(MIGRATE, ended("db"))
    assert planned(MIGRATE, known) == planned(MIGRATE, known)


def printed(text: str) -> str:
    """Return a plan as it is printed, from a block of text."""
    return "\n".join(line.strip() for line in text.strip().splitlines())


def test_the_printed_plan_of_a_first_start() -> None:
    stack = project(
        service("db"),
        service("cache"),
        service("migrate", "db", builds=True, image="app"),
        service(
            "api",
            needs("migrate", DONE),
            needs("cache"),
            needs("metrics", "service_healthy", required=False),
            builds=True,
            image="app",
        ),
        service("metrics"),
    )
    plan = plan_start(stack, list(stack.services), facts(stack, images={"app": None}))
    assert str(plan) == printed("""
        create db: it has no container
        start db <- create db
        check db <- start db
        create cache: it has no container
        start cache <- create cache
        check cache <- start cache
        create metrics: it has no container
        start metrics <- create metrics
        check metrics <- start metrics
        build migrate: image app is not here
        create migrate: it has no container <- build migrate
        start migrate <- create migrate, check db
        check migrate <- start migrate
        create api: it has no container <- build migrate
        start api <- create api, check migrate, start cache ~ check metrics
        check api <- start api
    """)


SHOP = project(
    service("db"),
    service("api", needs("db", "service_healthy", restart=True)),
    service("web", "api"),
    service("other", "db"),
)
CHANGED = healthy("db", config_hash="of yesterday")
NEW = healthy("db", id="new", status="created", health="none")
REST = (healthy("api"), healthy("web"), healthy("other"))


@pytest.mark.parametrize(
    ("now", "left"),
    [
        # Compose has made it again, and has stopped what asks to follow.
        (
            [NEW, ended("api"), *REST[1:]],
            """
            start db: its configuration changed
            check db <- start db
            start api: Compose has stopped it, to follow what it depends on <- check db
            check api <- start api
            """,
        ),
        # It has made it again, and what asks to follow still runs.
        (
            [NEW, *REST],
            """
            start db: its configuration changed
            check db <- start db
            restart api: db was recreated, and api asks to follow it <- check db
            check api <- restart api
            """,
        ),
        # It has kept it: nothing follows.
        ([CHANGED, *REST], "check db: its configuration changed"),
    ],
)
def test_what_is_left_once_containers_are_made(now: list[Container], left: str) -> None:
    known = facts(SHOP, CHANGED, *REST)
    plan = plan_start(SHOP, list(SHOP.services), known)
    assert str(plan) == printed("""
        recreate db: its configuration changed
        start db <- recreate db
        check db <- start db
    """)
    assert str(replan(SHOP, list(SHOP.services), plan, known.containers, facts(SHOP, *now).containers)) == printed(left)


def test_one_service_alone_that_compose_keeps_follows_what_was_recreated_before_it() -> None:
    api = healthy("api")
    known = facts(SHOP, healthy("db"), api, images={"image/api": IMAGE_ID})
    stack = project(*(replace(each, builds=each.name == "api") for each in SHOP.services.values()))
    plan = plan_alone(stack, "api", known, {"db"}, rebuild=True)
    assert plan.services("build", "recreate") == ["api"]
    left = replan(stack, ["api"], plan, known.containers, known.containers, leaders={"db"})
    assert str(left) == "restart api: db was recreated, and api asks to follow it\ncheck api <- restart api"
    made = facts(SHOP, healthy("api", id="new", status="created", health="none")).containers
    left = replan(stack, ["api"], plan, known.containers, made, leaders={"db"})
    assert [f"{action.verb} {action.service}" for action in left.actions] == ["start api"]


@pytest.mark.parametrize(
    ("failed", "left"),
    [
        (
            {"db"},
            """
            start db: its configuration changed
            check db <- start db
            check web: its configuration changed <- start db
            """,
        ),
        ({"web"}, "check db: its configuration changed\nstart web: its configuration changed\ncheck web <- start web"),
    ],
)
def test_what_could_not_be_made_is_left_to_fail_with_what_needs_it(failed: set[str], left: str) -> None:
    known = facts(SHOP, CHANGED, healthy("api"), healthy("web", config_hash="old"), healthy("other"))
    plan = plan_start(SHOP, list(SHOP.services), known)
    assert plan.services("recreate") == ["db", "web"]
    assert str(replan(SHOP, list(SHOP.services), plan, known.containers, known.containers, failed)) == printed(left)


def test_what_was_not_made_is_left_as_it_was_planned() -> None:
    known = facts(MIGRATE, healthy("db", health="starting"), ended("migrate"), ended("api"))
    plan = plan_start(MIGRATE, list(MIGRATE.services), known)
    assert str(plan) == printed("""
        check db: it runs, and its health is starting
        start migrate: api starts, and waits for it to complete <- check db
        check migrate <- start migrate
        start api: it is exited <- check migrate
        check api <- start api
    """)
    assert str(replan(MIGRATE, list(MIGRATE.services), plan, known.containers, known.containers)) == str(plan)


FELL = Failure("ready", "crashed", "it was ready, and ended again", retry=False)


@pytest.mark.parametrize(
    ("states", "crashed", "again"),
    [
        ({"db": "failed", "api": "healthy", "web": "healthy"}, ["db"], ["start db"]),
        # What was skipped because of it is started with it.
        ({"db": "failed", "api": "skipped", "web": "skipped"}, ["db"], ["start db", "start api", "start web"]),
        # Not what failed for reasons of its own, nor what can't do without that.
        ({"db": "failed", "api": "failed", "web": "skipped"}, ["db"], ["start db"]),
    ],
)
def test_what_is_started_once_more_after_a_crash(states: dict[str, Any], crashed: list[str], again: list[str]) -> None:
    stack = graph({"db": [], "api": ["db"], "web": ["api"]})
    records = {name: Record(name, state=state, failure=FELL) for name, state in states.items()}
    now = facts(stack, *(ended(name) for name in stack.services)).containers
    plan = plan_retry(stack, list(stack.services), records, crashed, now)
    assert [f"{action.verb} {action.service}" for action in plan.actions] == again


@pytest.mark.parametrize(
    ("api", "renewed", "actions"),
    [
        (healthy("api"), set(), []),
        (healthy("api"), {"db"}, ["restart api"]),
        (healthy("api", health="starting"), {"db"}, ["restart api"]),
        (ended("api"), {"db"}, ["start api"]),
        (healthy("api", config_hash="old"), {"db"}, ["recreate api"]),
    ],
)
def test_one_service_alone(api: Container, renewed: set[str], actions: list[str]) -> None:
    plan = plan_alone(SHOP, "api", facts(SHOP, api), renewed)
    assert [f"{action.verb} {action.service}" for action in plan.actions] == actions


def test_a_one_shot_that_still_runs_is_waited_for() -> None:
    known = facts(MIGRATE, healthy("db"), container("migrate"), ended("api"))
    assert planned(MIGRATE, known) == ["check migrate", "start api"]


@pytest.mark.parametrize(("age", "action"), [(3600, []), (90000, ["pull web", "recreate web"]), (None, [])])
def test_an_image_is_pulled_again_when_it_is_old(age: float | None, action: list[str]) -> None:
    stack = project(service("web", pull_policy="daily"))
    known = replace(facts(stack, container()), image_ages={} if age is None else {"image/web": age})
    assert planned(stack, known) == action


@pytest.mark.parametrize(
    ("base", "action"),
    [
        ({"pull_policy": "build"}, ["build app", "recreate app", "build base", "recreate base"]),
        ({}, []),
    ],
)
def test_what_is_built_on_another_image_is_built_with_it(base: dict[str, Any], action: list[str]) -> None:
    stack = project(service("app", builds=True, built_on=("base",)), service("base", builds=True, **base))
    assert planned(stack, facts(stack, container("app"), container("base"))) == action


CLOUD = project(
    service("cloud", provider="acme", replicas=0), service("web", needs("cloud")), service("other", needs("web"))
)


@pytest.mark.parametrize(
    ("there", "known", "action"),
    [
        ([], {}, ["create cloud", "create web", "create other"]),
        ([], {"cloud": HASH}, ["create cloud", "create web", "create other"]),  # taken down since
        ([container("web"), container("other")], {}, []),  # Compose has asked it
        ([container("web"), container("other")], {"cloud": HASH}, []),
        ([container("web"), container("other")], {"cloud": "of yesterday"}, ["create cloud", "recreate web"]),
        ([container("web"), container("other", config_hash="x")], {}, ["recreate other"]),
        ([container("web", config_hash="x"), container("other")], {}, ["create cloud", "recreate web"]),
        ([ended("web"), container("other")], {}, ["start web"]),
    ],
)
def test_a_provider_is_asked_when_compose_makes_what_depends_on_it(
    there: list[Container], known: dict[str, str], action: list[str]
) -> None:
    assert planned(CLOUD, replace(facts(CLOUD, *there), provided=known)) == action


@pytest.mark.parametrize(
    ("stack", "made", "certain"),
    [
        (WEB, {}, True),
        (project(service("web", environment={"A": "1"})), {}, False),  # perhaps from an env_file
        (project(service("web", environment={"A": "1"})), {"id-web-1": "something else"}, True),
        (CLOUD, {}, False),  # perhaps from its provider
    ],
)
def test_only_the_hash_differs(stack: Project, made: dict[str, str], certain: bool) -> None:
    known = replace(facts(stack, container(config_hash="of yesterday")), made=made)
    (action,) = (each for each in plan_start(stack, ["web"], known).actions if each.service == "web")
    assert (action.verb, action.certain) == ("recreate", certain)
