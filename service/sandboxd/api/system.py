"""What the service is: ping, version, info, disk use, and the routes of things that it has not."""

from __future__ import annotations

import os
import platform
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from aiohttp import web

from sandboxd import __version__
from sandboxd.api import images, volumes
from sandboxd.api.call import Call
from sandboxd.api.replies import API_VERSION, MIN_API_VERSION, json_reply, text_reply
from sandboxd.errors import NotFound, Unavailable

_MACHINES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "i686": "386"}
_DISK_USE_TYPES = ("container", "image", "volume", "build-cache")


async def ping(call: Call) -> web.StreamResponse:
    """GET and HEAD /_ping."""
    reply = text_reply("OK")
    reply.headers["Cache-Control"] = "no-cache, no-store, must-revalidate"
    reply.headers["Pragma"] = "no-cache"
    return reply


async def version(call: Call) -> web.StreamResponse:
    """GET /version; docker-py takes ApiVersion from here as its prefix."""
    api, oldest = _dotted(API_VERSION), _dotted(MIN_API_VERSION)
    about = {
        "ApiVersion": api,
        "MinAPIVersion": oldest,
        "Os": "linux",
        "Arch": _architecture(),
        "KernelVersion": platform.release(),
        "GitCommit": "",
        "GoVersion": "",
        "BuildTime": "",
    }
    details = {**about, "Experimental": "false"}
    engine = {"Name": "Engine", "Version": __version__, "Details": details}
    body = {
        "Platform": {"Name": "pytest-sandbox sandboxd"},
        "Components": [engine],
        "Version": __version__,
        **about,
    }
    return json_reply(body)


async def info(call: Call) -> web.StreamResponse:
    """GET /info: what the CLI prints and compose reads, the engine's own figures laid over it."""
    machine: Mapping[str, Any] = {
        "Name": platform.node(),
        "ServerVersion": __version__,
        "OSType": "linux",
        "OperatingSystem": _operating_system(),
        "Architecture": platform.machine(),
        "KernelVersion": platform.release(),
        "NCPU": len(os.sched_getaffinity(0)),
        "MemTotal": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "Driver": "overlay2",
        "DriverStatus": [],
        "SystemTime": datetime.now(UTC).isoformat().replace("+00:00", "Z"),
        "LoggingDriver": "json-file",
        "CgroupDriver": "cgroupfs",
        "CgroupVersion": "2",
        "Plugins": {"Volume": ["local"], "Network": [], "Log": ["json-file"]},
        "Swarm": {"LocalNodeState": "inactive", "NodeID": "", "ControlAvailable": False},
        "Runtimes": {"sandboxd": {"path": "sandboxd"}},
        "DefaultRuntime": "sandboxd",
        "SecurityOptions": _security_options(call.engine.status()["IdMap"]),
        "Warnings": None,
        "RegistryConfig": {
            "IndexConfigs": {},
            "InsecureRegistryCIDRs": ["127.0.0.0/8"],
            "Mirrors": [],
        },
        "IndexServerAddress": "https://index.docker.io/v1/",
        "ExperimentalBuild": False,
        "LiveRestoreEnabled": False,
        "Debug": False,
    }
    return json_reply({**machine, **call.engine.info()})


async def disk_use(call: Call) -> web.StreamResponse:
    """GET /system/df?type"""
    wanted = call.query.texts("type") or _DISK_USE_TYPES
    containers = call.engine.list(all=True, limit=-1, filters={}, size="container" in wanted)
    body: dict[str, Any] = {"LayersSize": 0, "BuilderSize": 0}
    if "container" in wanted:
        body["Containers"] = containers
    if "image" in wanted:
        users = Counter(container["ImageID"] for container in containers)
        rows = [images.row(image) for image in call.engine.images.list({})]
        body["Images"] = [{**row, "Containers": users[row["Id"]]} for row in rows]
        body["LayersSize"] = sum(row["Size"] for row in rows)
    if "volume" in wanted:
        mounts = Counter(mount.get("Name") for each in containers for mount in each["Mounts"])
        rows = [volumes.about(volume) for volume in call.engine.list_volumes({})]
        usage = ({"Size": -1, "RefCount": mounts[row["Name"]]} for row in rows)
        body["Volumes"] = [
            {**row, "UsageData": data} for row, data in zip(rows, usage, strict=True)
        ]
    if "build-cache" in wanted:
        body["BuildCache"] = rows = call.engine.builds.cached()
        body["BuilderSize"] = sum(row["Size"] for row in rows)
    return json_reply(body)


async def no_swarm(call: Call) -> web.StreamResponse:
    """The routes of a swarm, in the words that `docker inspect` and others recognise."""
    raise Unavailable(
        'This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to '
        "connect this node to swarm and try again."
    )


async def no_plugins(call: Call) -> web.StreamResponse:
    """GET /plugins."""
    return json_reply([])


async def no_plugin(call: Call) -> web.StreamResponse:
    """GET /plugins/{name+}/json: `docker inspect` asks here last."""
    raise NotFound(f"plugin {call.params['name']!r} not found")


def _security_options(idmap: str) -> list[str]:
    seccomp = "name=seccomp,profile=default"
    return [seccomp] if idmap.startswith("root") else [seccomp, "name=rootless"]


def _dotted(version: tuple[int, int]) -> str:
    return f"{version[0]}.{version[1]}"


def _architecture() -> str:
    """This machine's name in Go's words."""
    return _MACHINES.get(platform.machine(), platform.machine())


def _operating_system() -> str:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME", "Linux")
    except OSError:
        return "Linux"
