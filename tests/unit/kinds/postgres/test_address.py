"""Where a server listens, as its service says it."""

from __future__ import annotations

from typing import Any

import pytest
from builders import service

from stackhand.kinds.postgres import address


@pytest.mark.parametrize(
    ("raw", "environment", "expected"),
    [
        ({}, {}, {}),
        ({"command": ["postgres", "-p", "5433"]}, {}, {"PGPORT": "5433"}),
        ({"command": "-p5433"}, {}, {"PGPORT": "5433"}),
        ({"command": ["-c", "port=5433", "-k", "/run/pg"]}, {}, {"PGPORT": "5433", "PGHOST": "/run/pg"}),
        ({"command": ["-c", "unix_socket_directories=/a,/b"]}, {}, {"PGHOST": "/a"}),
        ({"command": ["postgres", "--port=5433", "-D", "/data"]}, {}, {"PGPORT": "5433", "PGDATA": "/data"}),
        ({}, {"PGPORT": "5433"}, {"PGPORT": "5433"}),
        ({"healthcheck": {"test": ["CMD", "pg_isready", "-p", "5433", "-h", "/a"]}}, {},
         {"PGPORT": "5433", "PGHOST": "/a"}),
        ({"healthcheck": {"test": ["CMD", "pg_isready", "-h", "127.0.0.1"]}}, {}, {}),
        # Another server's, for this container's clients: not the one to administer.
        ({}, {"PGHOST": "primary"}, {"PGHOST": ""}),
        ({}, {"PGHOST": "/a"}, {"PGHOST": "/a"}),
    ],
)  # fmt: skip
def test_where_a_server_listens(raw: dict[str, Any], environment: dict[str, str], expected: dict[str, str]) -> None:
    assert address.server_address(service("db", raw=raw, environment=environment)) == expected
