"""Binds, Mounts, Tmpfs and Volumes of a create body, as one checked list of mount points."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final

from sandboxd.engine.fields import Fields
from sandboxd.engine.settings import MountRequest
from sandboxd.errors import BadRequest, CannotEnforce

_VOLUME_NAME: Final = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+")
_PRIVATE: Final = frozenset({"", "private", "rprivate"})
_SHARED: Final = frozenset({"shared", "rshared", "slave", "rslave"})
_COPIED: Final = "O"
"""The word of `podman run -v` for a bind mount that is copy-on-write."""
_NO_EFFECT: Final = frozenset(
    {"rw", "z", "Z", "rbind", "bind", "private", "rprivate", "consistent", "cached", "delegated"}
)
_TMPFS_OPTIONS: Final = re.compile(
    r"(ro|rw|nosuid|nodev|noexec|exec|sync|async|(no|rel|strict)?atime|dirsync"
    r"|size=\d+[kKmMgG%]?|mode=[0-7]{1,4}|uid=\d+|gid=\d+|nr_(blocks|inodes)=\d+[kKmMgG]?)"
)


def mount_requests(host: Fields) -> tuple[MountRequest, ...]:
    """The mount points of a HostConfig, parents before children.

    Raises BadRequest for a target that is relative, holds `..`, is the root or comes twice, and
    CannotEnforce for mount propagation.
    """
    driver = host.text("VolumeDriver")
    requests = [_from_bind(bind, driver) for bind in host.texts("Binds")]
    requests += [_from_mount(mount) for mount in host.objects("Mounts")]
    tmpfs = host.labels("Tmpfs")
    requests += [_from_tmpfs(checked_target(path), options) for path, options in tmpfs.items()]
    _refuse_duplicates(requests)
    return by_depth(requests)


def by_depth(requests: Iterable[MountRequest]) -> tuple[MountRequest, ...]:
    """Sorted so that a mount point inside another one is mounted after it."""
    return tuple(sorted(requests, key=lambda request: request.target.count("/")))


def checked_target(path: str) -> str:
    """The path without needless slashes. Raises BadRequest for what cannot be a mount point."""
    if not path.startswith("/"):
        raise BadRequest(f"invalid mount path: {path!r}", "mount path must be absolute")
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise BadRequest(f"invalid mount path: {path!r}", "'..' is not allowed in a mount path")
    if not parts:
        raise BadRequest("invalid specification: destination can't be '/'")
    return "/" + "/".join(parts)


def anonymous_targets(volumes: Mapping[str, object]) -> tuple[str, ...]:
    """The mount points of Config.Volumes, each once."""
    return tuple(dict.fromkeys(checked_target(path) for path in volumes))


def _refuse_duplicates(requests: Iterable[MountRequest]) -> None:
    seen: set[str] = set()
    for request in requests:
        if request.target in seen:
            raise BadRequest(f"Duplicate mount point: {request.target}")
        seen.add(request.target)


def _from_bind(bind: str, driver: str) -> MountRequest:
    """`[SOURCE:]TARGET[:OPTIONS]`: the form of `docker run -v`."""
    source, target, mode = _split_bind(bind)
    options = frozenset(mode.split(",")) - {""}
    readonly, copy = _bind_options(options, mode)
    target = checked_target(target)
    if source.startswith("/"):
        if "nocopy" in options:
            raise BadRequest(f"invalid mode: {mode}", "nocopy is for volumes")
        cow = _COPIED in options
        return MountRequest(
            "bind", target, source, readonly, create_source=not cow, copy_on_write=cow, mode=mode
        )
    if _COPIED in options:
        raise BadRequest(f"invalid mode: {mode}", "O is for directories of the host")
    if source and not _VOLUME_NAME.fullmatch(source):
        raise BadRequest(
            f'"{source}" includes invalid characters for a local volume name, only '
            '"[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed',
            mend="an absolute path passes a host directory",
        )
    return MountRequest("volume", target, source, readonly, copy, driver=driver, mode=mode)


def _split_bind(bind: str) -> tuple[str, str, str]:
    parts = bind.split(":")
    if len(parts) == 1:
        parts = ["", *parts]
    elif len(parts) > 3 or not all(parts[:2]):
        raise BadRequest(f"invalid volume specification: {bind!r}")
    return parts[0], parts[1], parts[2] if len(parts) == 3 else ""


def _bind_options(options: frozenset[str], mode: str) -> tuple[bool, bool]:
    """Whether the mount is read-only, and whether an empty volume is filled."""
    unknown = options - _NO_EFFECT - _SHARED - {"ro", "nocopy", "copy", _COPIED}
    if unknown or {"ro", "rw"} <= options or {"ro", _COPIED} <= options:
        raise BadRequest(f"invalid mode: {mode}")
    if options & _SHARED:
        raise _no_propagation(mode)
    return "ro" in options, "nocopy" not in options


def _no_propagation(mode: str) -> CannotEnforce:
    why = "mounts are private: none made later passes in or out"
    return CannotEnforce(f"mount propagation {mode}", why, "leave it out, or say rprivate")


def _from_mount(mount: Fields) -> MountRequest:
    """One entry of HostConfig.Mounts: the form of `docker run --mount`."""
    kind, source = mount.text("Type"), mount.text("Source")
    target = checked_target(mount.text("Target"))
    readonly = mount.flag("ReadOnly")
    if kind == "volume":
        return _from_volume_mount(mount.object("VolumeOptions"), source, target, readonly)
    if kind == "bind":
        cow = mount.object("Sandbox").flag("CopyOnWrite")
        return _from_bind_mount(mount.object("BindOptions"), source, target, readonly, cow)
    if kind == "tmpfs":
        if source:
            raise BadRequest(f"invalid mount config for type {kind!r}", "it takes no source")
        return _from_tmpfs(target, _tmpfs_text(mount.object("TmpfsOptions"), readonly))
    if kind in ("npipe", "cluster", "image"):
        raise CannotEnforce(f"mount of type {kind}", "it is not supported", "use a volume")
    raise BadRequest(f"mount type unknown: {kind!r}")


def _from_volume_mount(options: Fields, source: str, target: str, readonly: bool) -> MountRequest:
    if source and not _VOLUME_NAME.fullmatch(source):
        raise BadRequest(f"invalid mount config for type 'volume': invalid name {source!r}")
    subpath = options.text("Subpath")
    if subpath.startswith("/") or ".." in subpath.split("/"):
        raise BadRequest(f"invalid volume subpath {subpath!r}", "it must lie inside the volume")
    driver = options.object("DriverConfig")
    return MountRequest(
        "volume",
        target,
        source,
        readonly,
        copy=not options.flag("NoCopy"),
        subpath=subpath,
        driver=driver.text("Name"),
        labels=options.labels("Labels"),
        options=driver.labels("Options"),
    )


def _from_bind_mount(
    options: Fields, source: str, target: str, readonly: bool, copy_on_write: bool
) -> MountRequest:
    if not source.startswith("/"):
        raise BadRequest("invalid mount config for type 'bind'", f"no absolute path: {source!r}")
    if options.text("Propagation") not in _PRIVATE:
        raise _no_propagation(options.text("Propagation"))
    create = options.flag("CreateMountpoint")
    if not copy_on_write:
        return MountRequest("bind", target, source, readonly, create_source=create)
    if readonly:
        raise BadRequest("invalid mount config for type 'bind'", "CopyOnWrite and ReadOnly at once")
    return MountRequest("bind", target, source, copy_on_write=True, mode=_COPIED)


def _tmpfs_text(options: Fields, readonly: bool) -> str:
    parts = ["ro"] if readonly else []
    if size := options.integer("SizeBytes"):
        parts.append(f"size={size}")
    if mode := options.integer("Mode"):
        parts.append(f"mode={mode:o}")
    return ",".join(parts)


def _from_tmpfs(target: str, options: str) -> MountRequest:
    words = [word for word in options.split(",") if word]
    for word in words:
        if not _TMPFS_OPTIONS.fullmatch(word):
            raise BadRequest(f"invalid tmpfs option {word!r}")
    readonly = "ro" in words
    return MountRequest("tmpfs", target, readonly=readonly, tmpfs_options=",".join(words))
