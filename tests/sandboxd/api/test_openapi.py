"""The reference of the routes under /sandbox/ names every one of them, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sandboxd.api.routes import ROUTES

_FILE = Path(__file__).parents[3] / "service" / "deploy" / "openapi.json"
_METHODS = {"get", "put", "post", "delete", "head", "options", "patch", "trace"}


@pytest.fixture(scope="module")
def reference() -> dict[str, Any]:
    document: dict[str, Any] = json.loads(_FILE.read_text())
    return document


def test_it_is_openapi_3_1(reference: dict[str, Any]) -> None:
    assert reference["openapi"].startswith("3.1.")
    assert {"title", "version"} <= reference["info"].keys()


def test_every_route_is_described_and_every_description_is_a_route(
    reference: dict[str, Any],
) -> None:
    described = {
        (method.upper(), path)
        for path, operations in reference["paths"].items()
        for method in operations.keys() & _METHODS
    }
    served = {(route.method, route.path) for route in ROUTES if route.path.startswith("/sandbox/")}
    assert described == served


def test_every_operation_has_an_id_of_its_own_and_answers(reference: dict[str, Any]) -> None:
    operations = [
        operation
        for item in reference["paths"].values()
        for method, operation in item.items()
        if method in _METHODS
    ]
    ids = [operation["operationId"] for operation in operations]
    assert len(ids) == len(set(ids))
    assert all(operation["responses"] for operation in operations)


def test_every_placeholder_is_a_parameter(reference: dict[str, Any]) -> None:
    for path, item in reference["paths"].items():
        operations = [item[method] for method in item.keys() & _METHODS]
        for operation in operations:
            parameters = item.get("parameters", []) + operation.get("parameters", [])
            names = {each["name"] for each in parameters if each.get("in") == "path"}
            assert names == {part[1:-1] for part in path.split("/") if part.startswith("{")}


def test_every_reference_leads_somewhere(reference: dict[str, Any]) -> None:
    for target in _references(reference):
        node: Any = reference
        for part in target.removeprefix("#/").split("/"):
            node = node[part]


def _references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if "$ref" in node:
            yield node["$ref"]
        for value in node.values():
            yield from _references(value)
    elif isinstance(node, list):
        for value in node:
            yield from _references(value)
