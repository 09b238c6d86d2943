"""A Docker create body and an image's configuration become one `Settings`. No kernel is touched.

Merging follows Docker: what the body says wins, lists of the image fill what it leaves out, and
environment, labels, ports and volumes add up. Unknown fields are ignored.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any, Final

from sandboxd.engine.fields import Fields
from sandboxd.engine.hostconfig import parse_host
from sandboxd.engine.mountpoints import anonymous_targets, by_depth
from sandboxd.engine.refusals import refuse_networks
from sandboxd.engine.settings import Healthcheck, HostSettings, MountRequest, Settings
from sandboxd.engine.signals import signal_number
from sandboxd.errors import BadRequest

_PORT: Final = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?(?:/(tcp|udp|sctp))?", re.IGNORECASE)
_HOSTNAME: Final = re.compile(r"[a-zA-Z0-9]([a-zA-Z0-9_.-]{0,62}[a-zA-Z0-9])?", re.ASCII)
_NANOSECONDS: Final = 1_000_000_000


def parse(body: Mapping[str, Any], image: Mapping[str, Any]) -> Settings:
    """The settings of a container: `body` merged over `image`, the `config` object of an OCI image.

    Raises BadRequest (wrong types, bad paths, no command) and CannotEnforce.
    """
    fields, defaults = Fields(body), Fields(image, "image configuration")
    refuse_networks(fields.object("NetworkingConfig"))
    host = parse_host(fields.object("HostConfig"))
    entrypoint, command = _command(fields, defaults)
    volumes = anonymous_targets({**defaults.mapping("Volumes"), **fields.mapping("Volumes")})
    return Settings(
        image=fields.text("Image"),
        entrypoint=entrypoint,
        command=command,
        env=merged_environment(defaults.texts("Env"), fields.texts("Env")),
        hostname=_hostname(fields.text("Hostname")),
        domainname=_hostname(fields.text("Domainname")),
        user=fields.text("User") or defaults.text("User"),
        working_dir=_working_dir(fields.text("WorkingDir") or defaults.text("WorkingDir")),
        tty=fields.flag("Tty"),
        open_stdin=fields.flag("OpenStdin"),
        stdin_once=fields.flag("StdinOnce"),
        labels={**defaults.labels("Labels"), **fields.labels("Labels")},
        stop_signal=_stop_signal(fields.text("StopSignal") or defaults.text("StopSignal")),
        stop_timeout=_stop_timeout(fields),
        exposed_ports=_ports(defaults.mapping("ExposedPorts"), fields.mapping("ExposedPorts")),
        volumes=volumes,
        healthcheck=_healthcheck(fields.object("Healthcheck"), defaults.object("Healthcheck")),
        host=_with_anonymous(host, volumes),
    )


def _command(fields: Fields, defaults: Fields) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Entrypoint and command. An entrypoint of the body drops the image's command, `[""]` both;
    an empty one drops the image's entrypoint alone, and null nothing: moby's daemon/commit.go.
    """
    entrypoint, command = fields.command("Entrypoint"), fields.command("Cmd")
    if not entrypoint:
        kept = fields.get("Entrypoint") is None
        entrypoint = defaults.command("Entrypoint") if kept else ()
        command = command or defaults.command("Cmd")
    elif entrypoint == ("",):
        entrypoint = ()
    if not entrypoint + command:
        raise BadRequest("no command specified", mend="name one, or use an image that has one")
    return entrypoint, command


def merged_environment(defaults: tuple[str, ...], wanted: tuple[str, ...]) -> tuple[str, ...]:
    """`wanted` over `defaults` by name; a name without `=` takes the variable away."""
    if not wanted:
        return defaults
    merged: dict[str, str] = {}
    for entry in defaults + wanted:
        name, equals, _ = entry.partition("=")
        if not name:
            raise BadRequest(f"invalid environment variable: {entry!r}")
        if equals:
            merged[name] = entry
        else:
            merged.pop(name, None)
    return tuple(merged.values())


def _hostname(name: str) -> str:
    if name and not _HOSTNAME.fullmatch(name):
        raise BadRequest(f"invalid hostname format: {name!r}")
    return name


def _working_dir(path: str) -> str:
    if path and not path.startswith("/"):
        raise BadRequest(
            f"the working directory {path!r} is invalid, it needs to be an absolute path"
        )
    return path


def _stop_signal(name: str) -> str:
    if name:
        signal_number(name)
    return name


def _stop_timeout(fields: Fields) -> int | None:
    return None if fields.get("StopTimeout") is None else fields.integer("StopTimeout")


def _ports(*maps: Mapping[str, Any]) -> tuple[str, ...]:
    """Exposed ports as `80/tcp`, ranges written out."""
    ports: dict[str, None] = {}
    for spec in (spec for each in maps for spec in each):
        match = _PORT.fullmatch(spec)
        first = int(match[1]) if match else 0
        last = int(match[2] or first) if match else 0
        if match is None or not 0 < first <= last < 1 << 16:
            raise BadRequest(f"invalid port specification: {spec!r}")
        protocol = (match[3] or "tcp").lower()
        ports |= dict.fromkeys(f"{port}/{protocol}" for port in range(first, last + 1))
    return tuple(ports)


def _healthcheck(wanted: Fields, default: Fields) -> Healthcheck | None:
    test = wanted.texts("Test") or default.texts("Test")
    kind, command = (test[0], test[1:]) if test else ("", ())
    if kind in ("", "NONE"):
        return None
    if kind == "CMD-SHELL" and len(command) == 1:
        command = ("/bin/sh", "-c", *command)
    elif kind != "CMD" or not command:
        raise BadRequest(f"Unknown healthcheck type {kind!r} (expected 'CMD')")
    usual = Healthcheck(command)

    def seconds(name: str, default_seconds: float) -> float:
        duration = wanted.integer(name) or default.integer(name)
        if duration < 0:
            raise BadRequest(f"{name} in Healthcheck cannot be less than 0")
        return duration / _NANOSECONDS or default_seconds

    return Healthcheck(
        command,
        interval=seconds("Interval", usual.interval),
        timeout=seconds("Timeout", usual.timeout),
        start_period=seconds("StartPeriod", usual.start_period),
        start_interval=seconds("StartInterval", usual.start_interval),
        retries=wanted.integer("Retries") or default.integer("Retries") or usual.retries,
    )


def _with_anonymous(host: HostSettings, volumes: tuple[str, ...]) -> HostSettings:
    """Anonymous volumes at the mount points that nothing else takes."""
    taken = {request.target for request in host.mounts}
    added = [MountRequest("volume", target) for target in volumes if target not in taken]
    if not added:
        return host
    return dataclasses.replace(host, mounts=by_depth([*host.mounts, *added]))
