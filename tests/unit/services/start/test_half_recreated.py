"""What a killed recreate leaves behind."""

from __future__ import annotations

from dataclasses import replace

import pytest
from builders import container

from stackhand.services.start.half_recreated import half_made, left, unrenamed

OLD = container(id="0123456789abcdef")
NEW = replace(OLD, id="fedcba", name="0123456789ab_shop-web-1", status="created", started_at=None, replaces=OLD.id)


def test_beside_the_old_one_the_new_one_is_half_made() -> None:
    assert half_made([OLD, NEW]) == [NEW]
    assert unrenamed([OLD, NEW]) == {}


@pytest.mark.parametrize("label", [OLD.id, OLD.name, "web-1"])
def test_the_label_may_hold_the_id_the_name_or_service_and_number(label: str) -> None:
    draft = replace(NEW, replaces=label)
    assert half_made([OLD, draft]) == [draft]
    assert left([OLD, draft]) == "an interrupted run has left it half made"


def test_a_draft_that_a_newer_compose_has_started_still_lacks_its_name() -> None:
    ran = replace(NEW, status="running", replaces="web-1")
    assert unrenamed([ran]) == {"fedcba": "shop-web-1"}
    assert "under a draft's name" in (left([ran]) or "")


def test_the_draft_of_another_replica_replaces_nothing_here() -> None:
    other = replace(OLD, id="2", name="shop-web-2", number=2)
    assert half_made([replace(NEW, replaces="web-1"), other]) == []


def test_where_the_old_one_is_gone_only_the_name_is_missing() -> None:
    assert half_made([NEW]) == []
    assert unrenamed([NEW]) == {"fedcba": "shop-web-1"}


def test_a_name_that_somebody_has_is_left_to_him() -> None:
    other = replace(OLD, id="77")
    assert unrenamed([NEW, other]) == {}


def test_a_container_that_took_its_place_is_just_a_container() -> None:
    done = replace(OLD, id="fedcba", replaces=OLD.id)
    assert half_made([done]) == []
    assert unrenamed([done]) == {}
    assert left([done]) is None


def test_one_that_has_run_is_never_removed() -> None:
    ran = replace(NEW, status="exited")
    assert half_made([OLD, ran]) == []
