"""What the project says of its services."""

from __future__ import annotations

from typing import Any

import pytest
from builders import project, service


@pytest.mark.parametrize(
    ("raw", "alone"),
    [
        ({"image": "web", "networks": {"default": None}}, True),
        ({"network_mode": "none", "ipc": "private", "pid": "host"}, True),
        ({"network_mode": "host", "ipc": "shareable"}, True),
        # Of another container, which may be a new one by now.
        ({"network_mode": "service:db"}, False),
        ({"ipc": "container:db"}, False),
        ({"pid": "service:db"}, False),
        ({"post_start": [{"command": "true"}]}, False),
        ({"a_setting_of_tomorrow": 1}, False),
    ],
)
def test_the_engine_alone_starts_what_is_complete_when_it_is_made(raw: dict[str, Any], alone: bool) -> None:
    assert project(service("web", raw=raw)).starts_without_compose("web") is alone
