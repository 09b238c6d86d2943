"""Networks: the two that Docker predefines and this version can name, none of which leads out.

Clients look networks up before they do anything else (testcontainers, compose, `docker inspect`),
so the routes answer; to make one is refused, since it would connect nothing.
"""

from __future__ import annotations

from hashlib import sha256
from typing import Any

from aiohttp import web

from sandboxd.api.call import Call
from sandboxd.api.replies import json_reply
from sandboxd.errors import CannotEnforce, Forbidden, NotFound

LIST_FILTERS = frozenset(("dangling", "driver", "id", "label", "name", "scope", "type"))
_DRIVERS = {"bridge": "bridge", "none": "null"}


async def list_(call: Call) -> web.StreamResponse:
    """GET /networks?filters"""
    filters = call.query.filters(LIST_FILTERS)
    return json_reply([network for network in _predefined() if _matches(network, filters)])


async def inspect(call: Call) -> web.StreamResponse:
    """GET /networks/{id}"""
    return json_reply(_find(call.params["id"]))


async def create(call: Call) -> web.StreamResponse:
    """POST /networks/create"""
    raise CannotEnforce("networks cannot be created", "a later version brings them")


async def remove(call: Call) -> web.StreamResponse:
    """DELETE /networks/{id}"""
    name = _find(call.params["id"])["Name"]
    raise Forbidden(f"{name} is a pre-defined network and cannot be removed")


async def connect(call: Call) -> web.StreamResponse:
    """POST /networks/{id}/connect and /disconnect"""
    _find(call.params["id"])
    raise CannotEnforce("containers cannot be connected", "a later version brings networks")


async def prune(call: Call) -> web.StreamResponse:
    """POST /networks/prune, which `docker system prune` calls."""
    return json_reply({"NetworksDeleted": None})


def _predefined() -> list[dict[str, Any]]:
    return [
        {
            "Name": name,
            "Id": sha256(f"sandboxd network {name}".encode()).hexdigest(),
            "Created": "1970-01-01T00:00:00Z",
            "Scope": "local",
            "Driver": driver,
            "EnableIPv6": False,
            "IPAM": {"Driver": "default", "Options": None, "Config": []},
            "Internal": True,
            "Attachable": False,
            "Ingress": False,
            "ConfigFrom": {"Network": ""},
            "ConfigOnly": False,
            "Containers": {},
            "Options": {},
            "Labels": {},
        }
        for name, driver in _DRIVERS.items()
    ]


def _find(ref: str) -> dict[str, Any]:
    for network in _predefined():
        if ref == network["Name"] or (len(ref) >= 12 and network["Id"].startswith(ref)):
            return network
    raise NotFound(f"network {ref} not found")


def _matches(network: dict[str, Any], filters: dict[str, list[str]]) -> bool:
    tests = {
        "name": lambda value: value in network["Name"],
        "id": lambda value: network["Id"].startswith(value),
        "driver": lambda value: value == network["Driver"],
        "scope": lambda value: value == network["Scope"],
        "type": lambda value: value == "builtin",
        "dangling": lambda value: value.lower() not in ("1", "true"),
        "label": lambda value: False,
    }
    return all(any(map(tests[key], values)) for key, values in filters.items())
