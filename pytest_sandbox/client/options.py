"""The keywords that a container is made with, and the request body that they become.

`create_body` only plans: it reads no file and calls no service. What the service cannot enforce it
refuses; here only what cannot be put into words of the Engine API is an error.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, TypedDict

from pytest_sandbox.client.bind import Bind
from pytest_sandbox.client.volume import Volume

if TYPE_CHECKING:
    from pytest_sandbox.errors import BadRequest

ENCLOSING = "SANDBOX_ENCLOSING_IMAGE"
"""Set in containers of tox environments that start containers themselves: their own image."""

VolumeMap = Mapping[Any, str | Volume | Mapping[str, str]] | Sequence[str]
"""Keys are str, os.PathLike, Bind or Volume: Any, since Mapping is invariant in its keys."""


class ContainerOptions(TypedDict, total=False):
    """Keywords of `Client.run` and `Client.container`, all optional."""

    volumes: VolumeMap
    """What is mounted where: an absolute host path, the name of a volume or a Volume, to its place
    in the container, `"/data"` or `"/data:ro"`; or the place to a Volume: `{"/data": volume}`.
    `"/data:O"` and `Bind(path, copy_on_write=True)` pass a host directory copy-on-write.
    docker-py's forms are understood too: `{"source": {"bind": "/data", "mode": "ro"}}` and
    `["source:/data:ro"]`."""
    env: Mapping[str, str]
    """Environment on top of the image's."""
    workdir: str
    """Directory in which the command starts; made if it is missing."""
    user: str
    """`name`, `uid`, `name:group` or `uid:gid`, looked up inside the image."""
    entrypoint: str | Sequence[str]
    """Replaces the image's entrypoint; `args` follow it."""
    hostname: str
    labels: Mapping[str, str]
    read_only: bool
    """A root file system that refuses writes; volumes and tmpfs stay writable."""
    upper: str
    """Where writes to the root go: `disk` for very many bytes, else the service's memory while the
    container belongs to a lease."""
    tmpfs: Sequence[str] | Mapping[str, str]
    """Empty in-memory directories: paths, or path to options such as `"size=64m,mode=1777"`."""
    show: Sequence[str | os.PathLike[str]]
    """Image `host` only: host paths to show, read-only, which it hides otherwise (/home, /tmp)."""
    memory: int | str
    """Bytes, or a number with the unit b, k, m or g."""
    shm_size: int | str
    """Size of /dev/shm, written as `memory` is."""
    pids_limit: int
    """Most processes at once."""
    cpus: float
    """CPU time per time, as in 0.5."""
    init: bool
    """A reaper as process 1, which runs the command as its child."""
    cap_add: Sequence[str]
    cap_drop: Sequence[str]
    """Names of capabilities, with or without CAP_, or ALL."""
    group_add: Sequence[str]
    """More groups for the command: names or numbers."""
    ulimits: Mapping[str, int | tuple[int, int]]
    """Resource limits such as `{"nofile": 1024}` or `{"nofile": (soft, hard)}`."""
    extra_hosts: Mapping[str, str]
    """Lines for /etc/hosts: name to address."""
    network: str
    """Whose network it joins, instead of an empty one of its own: `host`, this machine's, with all
    that listens on it; `container:NAME`; or `pid:PID`, a process of this user in a network
    namespace that `Client.user_namespace` or one below owns."""
    sysctls: Mapping[str, str]
    stop_signal: str
    """What `stop` sends first, SIGTERM if not set."""
    tty: bool
    """A terminal of its own; standard output and error become one stream."""
    open_stdin: bool
    """A standard input that stays open for `attach`."""
    auto_remove: bool
    """Remove the container by itself once it has exited."""


def create_body(
    image: str, args: Sequence[str] | None, options: ContainerOptions
) -> dict[str, Any]:
    """The body of POST /containers/create and /sandbox/run. TypeError for an unknown keyword."""
    unknown = options.keys() - ContainerOptions.__annotations__.keys()
    if unknown:
        raise TypeError(f"unknown container option: {', '.join(sorted(unknown))}")
    host_config = _section(_HOST_CONFIG, options)
    image = image_here(image)
    if is_host_image(image):
        host_config["SandboxShow"] = shown_paths(options.get("show") or ())
    body = {"Image": image, **_section(_CONFIG, options), "HostConfig": host_config}
    if args is not None:
        body["Cmd"] = arguments(args)
    return body


def _section(fields: _Fields, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options that are set, under the API's names. None stands for "not set"."""
    return {
        key: convert(options[name])
        for name, (key, convert) in fields.items()
        if options.get(name) is not None
    }


def is_host_image(image: str) -> bool:
    """Whether the image is the machine's own root."""
    return image in ("host", "host:latest")


def image_here(image: str) -> str:
    """For the machine's own root, inside a container of a tox environment, the environment's image:
    what is installed there is on no other."""
    return os.environ.get(ENCLOSING, image) if is_host_image(image) else image


def shown_paths(wished: Sequence[str | os.PathLike[str]]) -> list[str]:
    """What the image `host` shows: this interpreter, its virtual environment, and the wishes."""
    paths = [*_interpreter_paths(), *map(_absolute, wished)]
    return list(dict.fromkeys(paths))


@cache
def _interpreter_paths() -> tuple[str, ...]:
    """Prefixes of this interpreter; those below /usr are part of the image `host` anyway."""
    executable = os.path.realpath(sys.executable) if sys.executable else ""
    real_prefix = os.path.dirname(os.path.dirname(executable))
    prefixes = (sys.prefix, sys.exec_prefix, sys.base_prefix, sys.base_exec_prefix, real_prefix)
    return tuple(
        prefix
        for prefix in dict.fromkeys(prefixes)
        if prefix.startswith("/") and prefix != "/" and not f"{prefix}/".startswith("/usr/")
    )


def arguments(args: Sequence[str]) -> list[str]:
    """The command as a list. TypeError for a string, which would become a list of letters."""
    if isinstance(args, str):
        raise TypeError(f"args: a sequence of strings, not one string: [{args!r}, …]")
    return [os.fspath(arg) for arg in args]


def environment_list(env: Mapping[str, str]) -> list[str]:
    """`K=V` as the API has it. BadRequest for a name that is empty or holds `=`."""
    for name in env:
        if not name or "=" in name:
            raise _bad_request(f"env {name!r}", "not a name for an environment variable")
    return [f"{name}={value}" for name, value in env.items()]


def bytes_of(size: int | str) -> int:
    """1048576 for 1048576, "1048576", "1m" and "1MiB". BadRequest for anything else."""
    if isinstance(size, int):
        return size
    found = re.fullmatch(r"(\d+)\s*([kmgt]?)(?:i?b)?", size.strip().lower())
    if found is None:
        raise _bad_request(f"size {size!r}", "not a number of bytes, nor one with k, m or g")
    return int(found[1]) << {"": 0, "k": 10, "m": 20, "g": 30, "t": 40}[found[2]]


def mounts(volumes: VolumeMap) -> list[dict[str, Any]]:
    """HostConfig.Mounts for the keyword `volumes`. BadRequest for a place that is not absolute."""
    if isinstance(volumes, str):
        raise TypeError(f"volumes: a mapping or a sequence of strings, not one string: {volumes!r}")
    if not isinstance(volumes, Mapping):
        volumes = dict(_source_and_place(entry) for entry in volumes)
    return [_mount(source, target) for source, target in volumes.items()]


def _source_and_place(entry: str) -> tuple[str, str]:
    source, colon, place = entry.partition(":")
    if not colon:
        raise _bad_request(f"volume {entry!r}", "write it as source:/place or source:/place:ro")
    return source, place


def _mount(
    source: str | os.PathLike[str] | Bind | Volume, target: str | Volume | Mapping[str, str]
) -> dict[str, Any]:
    if isinstance(target, Mapping):
        mode = target.get("mode") or "rw"
        return _mount(source, f"{target.get('bind', '')}:{mode}")
    if isinstance(target, Volume):
        if not isinstance(source, str):
            raise TypeError(f"volumes: a Volume is mounted at a path, not at {source!r}")
        path, mode = _place(source)
        return _mount_entry("volume", target.name, path, mode)
    path, mode = _place(target)
    if isinstance(source, Volume):
        return _mount_entry("volume", source.name, path, mode)
    if isinstance(source, Bind):
        if source.copy_on_write and mode == "ro":
            raise _bad_request(f"volume at {target!r}", "copy-on-write and read-only at once")
        mode = "O" if source.copy_on_write else mode
        return _mount_entry("bind", _absolute(source.path), path, mode)
    if not isinstance(source, str) or source.startswith("/"):
        return _mount_entry("bind", _absolute(source), path, mode)
    if "/" in source:
        raise _bad_request(
            f"volume {source!r}", "neither an absolute path nor the name of a volume"
        )
    return _mount_entry("volume", source, path, mode)


def _mount_entry(kind: str, source: str, target: str, mode: str) -> dict[str, Any]:
    entry = {"Type": kind, "Source": source, "Target": target, "ReadOnly": mode == "ro"}
    if mode != "O":
        return entry
    if kind != "bind":
        raise _bad_request(f"volume at {target!r}", "only a directory of the host takes :O")
    return {**entry, "Sandbox": {"CopyOnWrite": True}}


def _place(target: str) -> tuple[str, str]:
    """`/path[:ro|:rw|:O]` as the path and the mode."""
    path, _, mode = target.partition(":")
    if not path.startswith("/") or mode not in ("", "ro", "rw", "O"):
        why = "the place in the container must be an absolute path, alone or with :ro, :rw or :O"
        raise _bad_request(f"volume at {target!r}", why)
    return path, mode


def _bad_request(what: str, why: str) -> BadRequest:
    from pytest_sandbox.errors import BadRequest

    return BadRequest(what, why)


def _absolute(path: str | os.PathLike[str]) -> str:
    return os.path.abspath(path)


def _entrypoint(value: str | Sequence[str]) -> list[str]:
    return [value] if isinstance(value, str) else list(value)


def _tmpfs(value: Sequence[str] | Mapping[str, str]) -> dict[str, str]:
    if isinstance(value, str):
        raise TypeError(f"tmpfs: a sequence of paths, not one string: [{value!r}]")
    return dict(value) if isinstance(value, Mapping) else dict.fromkeys(value, "")


def _ulimits(value: Mapping[str, int | tuple[int, int]]) -> list[dict[str, Any]]:
    pairs = ((name, limit, limit) if isinstance(limit, int) else (name, *limit)
             for name, limit in value.items())  # fmt: skip
    return [{"Name": name, "Soft": soft, "Hard": hard} for name, soft, hard in pairs]


def _nano_cpus(cpus: float) -> int:
    if not 0 < cpus < float("inf"):
        raise _bad_request(f"cpus {cpus}", "not a positive number")
    return round(cpus * 1e9)


def _hosts(value: Mapping[str, str]) -> list[str]:
    return [f"{name}:{address}" for name, address in value.items()]


_Fields = dict[str, tuple[str, Callable[[Any], Any]]]

_CONFIG: _Fields = {
    "env": ("Env", environment_list),
    "workdir": ("WorkingDir", os.fspath),
    "user": ("User", str),
    "entrypoint": ("Entrypoint", _entrypoint),
    "hostname": ("Hostname", str),
    "labels": ("Labels", dict),
    "stop_signal": ("StopSignal", str),
    "tty": ("Tty", bool),
    "open_stdin": ("OpenStdin", bool),
}
_HOST_CONFIG: _Fields = {
    "volumes": ("Mounts", mounts),
    "read_only": ("ReadonlyRootfs", bool),
    "upper": ("StorageOpt", lambda upper: {"upper": upper}),
    "tmpfs": ("Tmpfs", _tmpfs),
    "memory": ("Memory", bytes_of),
    "shm_size": ("ShmSize", bytes_of),
    "pids_limit": ("PidsLimit", int),
    "cpus": ("NanoCpus", _nano_cpus),
    "init": ("Init", bool),
    "cap_add": ("CapAdd", list),
    "cap_drop": ("CapDrop", list),
    "group_add": ("GroupAdd", lambda groups: list(map(str, groups))),
    "ulimits": ("Ulimits", _ulimits),
    "extra_hosts": ("ExtraHosts", _hosts),
    "network": ("NetworkMode", str),
    "sysctls": ("Sysctls", dict),
    "auto_remove": ("AutoRemove", bool),
}
