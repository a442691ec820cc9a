"""The sites of a Caddy, from the configuration that it prints."""

from __future__ import annotations

from typing import Any

import pytest

from stackhand.kinds.caddy import Site, parse


def configuration(**servers: Any) -> dict[str, Any]:
    return {"apps": {"http": {"servers": servers}}}


def server(*listen: str, hosts: tuple[str, ...] = (), **more: Any) -> dict[str, Any]:
    return {"listen": list(listen), "routes": [{"match": [{"host": [each]}]} for each in hosts], **more}


@pytest.mark.parametrize(
    ("document", "sites"),
    [
        ({}, []),
        (configuration(srv0=server(":9000")), []),
        (configuration(srv0=server(":443", hosts=("a.test", "b.test"))),
         [("a.test", 443, True), ("b.test", 443, True)]),
        (configuration(srv0=server(":80", hosts=("a.test",))), [("a.test", 80, False)]),
        (configuration(srv0=server("tcp/127.0.0.1:8443", hosts=("a.test",))), [("a.test", 8443, True)]),
        (configuration(srv0=server(":8080", hosts=("a.test",), automatic_https={"skip": ["a.test"]})),
         [("a.test", 8080, False)]),
        (configuration(srv0=server(":8080", hosts=("a.test",), automatic_https={"disable": True})),
         [("a.test", 8080, False)]),
        (configuration(srv0=server(":80", hosts=("a.test",), tls_connection_policies=[{}])), [("a.test", 80, True)]),
        (configuration(srv0=server(":443", hosts=("*.a.test",))), [("www.a.test", 443, True)]),
        (configuration(srv0=server(":443", hosts=("{env.HOST}",))), []),
        (configuration(srv0=server("unix//run/caddy.sock", ":4430-4440", hosts=("a.test",))), []),
    ],
)  # fmt: skip
def test_sites(document: dict[str, Any], sites: list[tuple[str, int, bool]]) -> None:
    assert list(parse(document)) == [Site(*each) for each in sites]
