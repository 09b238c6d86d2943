"""A container as GET /containers/{id}/json shows it, in the shape of Docker's API 1.45."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from sandboxd.engine.clock import rfc3339
from sandboxd.engine.container import Container, MountPoint
from sandboxd.engine.states import State
from sandboxd.errors import NotFound
from sandboxd.launcher.profile import MASKED_PATHS, READONLY_PATHS

if TYPE_CHECKING:
    from sandboxd.volumes import Volumes

_HOST_DEFAULTS: Final[Mapping[str, Any]] = {
    "Binds": None,
    "ContainerIDFile": "",
    "LogConfig": {"Type": "json-file", "Config": {}},
    "NetworkMode": "none",
    "PortBindings": {},
    "RestartPolicy": {"Name": "no", "MaximumRetryCount": 0},
    "AutoRemove": False,
    "VolumeDriver": "",
    "VolumesFrom": None,
    "ConsoleSize": [0, 0],
    "CapAdd": None,
    "CapDrop": None,
    "CgroupnsMode": "private",
    "Dns": [],
    "DnsOptions": [],
    "DnsSearch": [],
    "ExtraHosts": None,
    "GroupAdd": None,
    "IpcMode": "private",
    "Cgroup": "",
    "Links": None,
    "OomScoreAdj": 0,
    "PidMode": "",
    "Privileged": False,
    "PublishAllPorts": False,
    "ReadonlyRootfs": False,
    "SecurityOpt": None,
    "UTSMode": "",
    "UsernsMode": "",
    "ShmSize": 64 << 20,
    "Runtime": "sandboxd",
    "Isolation": "",
    "CpuShares": 0,
    "Memory": 0,
    "NanoCpus": 0,
    "CgroupParent": "",
    "BlkioWeight": 0,
    "CpuPeriod": 0,
    "CpuQuota": 0,
    "CpusetCpus": "",
    "CpusetMems": "",
    "Devices": [],
    "DeviceCgroupRules": None,
    "DeviceRequests": None,
    "MemoryReservation": 0,
    "MemorySwap": 0,
    "MemorySwappiness": None,
    "OomKillDisable": False,
    "PidsLimit": None,
    "Ulimits": [],
}


def inspect(container: Container, volumes: Volumes) -> dict[str, Any]:
    """The whole object; what clients index without asking is always there."""
    settings = container.settings
    args = settings.args
    return {
        "Id": container.id,
        "Created": rfc3339(container.created),
        "Path": args[0],
        "Args": list(args[1:]),
        "State": _state(container),
        "Image": container.image,
        "ResolvConfPath": "",
        "HostnamePath": "",
        "HostsPath": "",
        "LogPath": "" if container.ephemeral else str(container.log_path),
        "Name": f"/{container.name}",
        "RestartCount": 0,
        "Driver": "overlay2",
        "Platform": "linux",
        "MountLabel": "",
        "ProcessLabel": "",
        "AppArmorProfile": "",
        "ExecIDs": sorted(container.execs) or None,
        "HostConfig": _host_config(container),
        "GraphDriver": {"Name": "overlay2", "Data": None},
        "Mounts": [mount_row(point, volumes) for point in container.mounts],
        "Config": config_of(container),
        "NetworkSettings": _network_settings(container),
    }


def _state(container: Container) -> dict[str, Any]:
    facts, program = container.facts, container.program
    state: dict[str, Any] = {
        "Status": str(facts.state),
        "Running": container.running,
        "Paused": False,
        "Restarting": False,
        "OOMKilled": facts.oom_killed,
        "Dead": facts.state is State.DEAD,
        "Pid": program.running.pid if program else 0,
        "ExitCode": facts.exit_code,
        "Error": facts.error,
        "StartedAt": rfc3339(facts.started),
        "FinishedAt": rfc3339(facts.finished),
    }
    if container.health:
        state["Health"] = container.health.about()
    return state


def config_of(container: Container) -> dict[str, Any]:
    """What the container was made to be: the object `Config`."""
    settings, body = container.settings, container.body
    return {
        "Hostname": container.hostname,
        "Domainname": settings.domainname,
        "User": settings.user,
        "AttachStdin": bool(body.get("AttachStdin")),
        "AttachStdout": bool(body.get("AttachStdout")),
        "AttachStderr": bool(body.get("AttachStderr")),
        "ExposedPorts": {port: {} for port in settings.exposed_ports},
        "Tty": settings.tty,
        "OpenStdin": settings.open_stdin,
        "StdinOnce": settings.stdin_once,
        "Env": list(settings.env),
        "Cmd": list(settings.command) or None,
        "Image": settings.image,
        "Volumes": {path: {} for path in settings.volumes} or None,
        "WorkingDir": settings.working_dir,
        "Entrypoint": list(settings.entrypoint) or None,
        "OnBuild": container.image_config.get("OnBuild"),
        "Labels": dict(settings.labels),
        "StopSignal": settings.stop_signal or "SIGTERM",
        "StopTimeout": settings.stop_timeout,
        "Healthcheck": body.get("Healthcheck") or container.image_config.get("Healthcheck"),
    }


def _host_config(container: Container) -> dict[str, Any]:
    asked = container.body.get("HostConfig") or {}
    given = {name: value for name, value in asked.items() if value is not None}
    shown = {**_HOST_DEFAULTS, **given}
    shown["LogConfig"] = _log_config(given.get("LogConfig") or {})
    # Every network mode that is not refused comes to the same: a namespace of its own.
    shown["NetworkMode"] = given.get("NetworkMode") or "none"
    shown["ShmSize"] = container.settings.host.shm_size
    shown["MaskedPaths"], shown["ReadonlyPaths"] = list(MASKED_PATHS), list(READONLY_PATHS)
    return shown


def _log_config(asked: Mapping[str, Any]) -> dict[str, Any]:
    """docker-py's run() returns None for any other type than this."""
    kind = asked.get("Type") or "json-file"
    return {"Type": "none" if kind == "none" else "json-file", "Config": asked.get("Config") or {}}


def network_mode(container: Container) -> str:
    asked = container.body.get("HostConfig") or {}
    return str(asked.get("NetworkMode") or "none")


def networks() -> dict[str, Any]:
    """The one endpoint of a container without a network."""
    return {
        "none": {
            "IPAMConfig": None,
            "Links": None,
            "Aliases": None,
            "MacAddress": "",
            "DriverOpts": None,
            "NetworkID": "",
            "EndpointID": "",
            "Gateway": "",
            "IPAddress": "",
            "IPPrefixLen": 0,
            "IPv6Gateway": "",
            "GlobalIPv6Address": "",
            "GlobalIPv6PrefixLen": 0,
            "DNSNames": None,
        }
    }


def _network_settings(container: Container) -> dict[str, Any]:
    ports = dict.fromkeys(container.settings.exposed_ports) if container.running else {}
    return {
        "Bridge": "",
        "SandboxID": "",
        "SandboxKey": "",
        "Ports": ports,
        "EndpointID": "",
        "Gateway": "",
        "GlobalIPv6Address": "",
        "GlobalIPv6PrefixLen": 0,
        "IPAddress": "",
        "IPPrefixLen": 0,
        "IPv6Gateway": "",
        "MacAddress": "",
        "Networks": networks(),
    }


def mount_row(point: MountPoint, volumes: Volumes) -> dict[str, Any]:
    """One entry of `Mounts`, the same in inspect and in the list."""
    request = point.request
    row: dict[str, Any] = {
        "Type": request.kind,
        "Source": request.source,
        "Destination": request.target,
        "Mode": request.mode,
        "RW": not request.readonly,
        "Propagation": "rprivate" if request.kind == "bind" else "",
    }
    if request.kind == "volume":
        row["Name"], row["Driver"] = point.volume, request.driver or "local"
        row["Source"] = _mountpoint(point.volume, volumes)
    return row


def _mountpoint(name: str, volumes: Volumes) -> str:
    try:
        return str(volumes.get(name).mountpoint)
    except NotFound:
        # A scratch volume that was sealed, or one removed behind an ended container's back.
        return ""
