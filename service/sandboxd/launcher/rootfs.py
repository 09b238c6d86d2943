"""A root file system as a list of typed operations: planned without a kernel, printable, then run.

`plan` turns a specification into operations, in the order in which they run: this module is the one
place where that order stands.
"""

from __future__ import annotations

from collections.abc import Sequence

from sandboxd.launcher.copied_bind import AttachCopied
from sandboxd.launcher.host_root import Hide, HostBind, HostOverlay, HostSkeleton
from sandboxd.launcher.operations import (
    AttachMount,
    AttachPart,
    EnterRoot,
    LateServiceFiles,
    SealRoot,
    SeedServiceFiles,
    ServiceFile,
    ShareMemorySize,
    StackLayers,
)
from sandboxd.launcher.spec import DEFAULT_SHM_SIZE, ContainerSpec, HostRoot, Mount, Rootfs
from sandboxd.launcher.stage import Operation


def plan(spec: ContainerSpec) -> list[Operation]:
    """The operations for `spec`, in the order in which they run in a slot for any image."""
    rootfs, files = spec.rootfs, _service_files(spec)
    if rootfs.host is not None or rootfs.upper is not None:
        return [*_root(rootfs), *_inside(spec, files)]
    seeded = SeedServiceFiles(rootfs.lowers, tuple(files))
    return [seeded, *_root(rootfs), *_inside(spec, [LateServiceFiles()])]


def plan_on_host(spec: ContainerSpec) -> list[Operation]:
    """The operations that are left in a slot that has assembled the image `host` ahead."""
    return _inside(spec, _service_files(spec))


def plan_host(host: HostRoot, upper: str | None) -> list[Operation]:
    """The root of the image `host` alone."""
    operations: list[Operation] = [HostSkeleton(host, upper)]
    operations += [HostOverlay(name, lower, upper) for name, lower in host.overlays]
    operations += [HostBind(f"/{name}") for name in host.binds]
    above = [path for path in host.hide if any(is_below(shown, path) for shown in host.show)]
    operations += [Hide(path) for path in above]
    operations += [HostBind(path) for path in host.show]
    operations += [Hide(path) for path in host.hide if path not in above]
    return operations


def is_below(path: str, directory: str) -> bool:
    return path.startswith(f"{directory}/")


def _inside(spec: ContainerSpec, files: Sequence[Operation]) -> list[Operation]:
    operations: list[Operation] = []
    if spec.shm_size != DEFAULT_SHM_SIZE:
        operations.append(ShareMemorySize(spec.shm_size))
    operations += [AttachPart(name) for name in ("proc", "sys", "dev")]
    operations += files
    upper = spec.rootfs.upper
    operations += [_attached(each, upper) for each in sorted(spec.mounts, key=_depth)]
    if spec.rootfs.readonly:
        operations.append(SealRoot())
    operations.append(EnterRoot())
    return operations


def _attached(request: Mount, upper: str | None) -> Operation:
    return AttachCopied(request, upper) if request.copy_on_write else AttachMount(request)


def _root(rootfs: Rootfs) -> list[Operation]:
    if rootfs.host is not None:
        return plan_host(rootfs.host, rootfs.upper)
    return [StackLayers(rootfs.lowers, rootfs.upper)]


def _service_files(spec: ContainerSpec) -> list[ServiceFile]:
    taken = {each.target.rstrip("/") for each in spec.mounts}
    files = (
        ("/etc/hosts", spec.hosts),
        ("/etc/hostname", f"{spec.hostname}\n"),
        ("/etc/resolv.conf", spec.resolv_conf),
    )
    return [ServiceFile(path, text) for path, text in files if text and path not in taken]


def _depth(request: Mount) -> int:
    return request.target.rstrip("/").count("/")
