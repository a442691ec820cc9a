"""No module imports itself by a detour: neither at run time nor for the type checker."""

from __future__ import annotations

from collections.abc import Mapping, Set
from graphlib import CycleError, TopologicalSorter

import grimp
import pytest


def circle(imports: Mapping[str, Set[str]]) -> list[str]:
    """Return modules that import each other in a circle, or an empty list."""
    try:
        TopologicalSorter(imports).prepare()
    except CycleError as error:
        found: list[str] = error.args[1]
        return found[:-1]
    return []


@pytest.mark.parametrize(
    ("imports", "members"),
    [
        ({}, set()),
        ({"a": {"b"}, "b": {"c"}}, set()),
        ({"a": {"b"}, "b": {"a"}}, {"a", "b"}),
        ({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}, {"a", "b", "c"}),
    ],
)
def test_circles_are_seen(imports: dict[str, set[str]], members: set[str]) -> None:
    assert set(circle(imports)) == members


def test_no_modules_import_each_other_in_a_circle() -> None:
    graph = grimp.build_graph("stackhand", exclude_type_checking_imports=False, cache_dir=None)
    imports = {module: set(graph.find_modules_directly_imported_by(module)) for module in graph.modules}
    assert circle(imports) == []
