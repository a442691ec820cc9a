"""A volume that Compose keeps although its definition changed: what is said of it."""

from __future__ import annotations

import pytest

from stackhand.checks.check import Verdict
from stackhand.engine.api.resources import VolumeDefinition
from stackhand.engine.compose.project import Volume
from stackhand.services.checks.volumes import evaluate_volume

SHARE = {"type": "cifs", "device": "//nas/share", "o": "username=me,password=swordfish"}


def verdicts(volume: Volume, made: VolumeDefinition) -> list[Verdict]:
    return list(evaluate_volume("data", volume, made))


def test_a_plain_volume_has_nothing_to_say() -> None:
    assert verdicts(Volume("shop_data", labels={"a": "b"}), VolumeDefinition()) == []


def test_one_that_is_as_defined() -> None:
    (verdict,) = verdicts(Volume("shop_data", driver_opts=SHARE), VolumeDefinition(options=dict(SHARE)))
    assert (verdict.status, verdict.subject) == ("ok", "data")


@pytest.mark.parametrize(
    ("volume", "made", "says"),
    [
        (Volume("shop_data", driver_opts=SHARE), VolumeDefinition(), "other driver_opts: device, o, type"),
        (Volume("shop_data"), VolumeDefinition(options=SHARE), "other driver_opts: device, o, type"),
        (Volume("shop_data", driver="nfs"), VolumeDefinition(), "driver local, now nfs"),
        (
            Volume("shop_data", driver_opts={**SHARE, "o": "username=me,password=new"}),
            VolumeDefinition(options=SHARE),
            "other driver_opts: o",
        ),
    ],
)
def test_another_definition_is_told_without_its_values(volume: Volume, made: VolumeDefinition, says: str) -> None:
    (verdict,) = verdicts(volume, made)
    assert verdict.status == "warn"
    assert verdict.evidence == f"shop_data was made with {says}"
    assert "password" not in f"{verdict}"
    assert "copy the data" in verdict.remedy
