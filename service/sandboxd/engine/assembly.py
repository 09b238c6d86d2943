"""The launcher's specification of a container, from its settings. Nothing is done here."""

from __future__ import annotations

import resource
from typing import TYPE_CHECKING, Final

from sandboxd.engine import network_mode
from sandboxd.engine.configuration import merged_environment
from sandboxd.engine.container import Container
from sandboxd.engine.settings import HostSettings, Settings
from sandboxd.launcher.profile import DEFAULT_CAPABILITIES
from sandboxd.launcher.rootfs import plan
from sandboxd.launcher.spec import ContainerSpec, Mount, Process, Rootfs

if TYPE_CHECKING:
    from sandboxd.images import Images
    from sandboxd.linux.idmap import IdMap

Rlimit = tuple[str, int, int]
"""Name, soft and hard limit."""

_PROCESSES: Final = 2048
_PATH: Final = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_LOCALHOST: Final = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n"
_NO_DNS: Final = "# no network, no name server\n"


def container_spec(
    container: Container,
    rootfs: Rootfs,
    mounts: tuple[Mount, ...],
    *,
    cgroups: tuple[str, ...] = (),
    rlimits: tuple[Rlimit, ...] = (),
) -> ContainerSpec:
    """What the launcher is asked to start for `container`; `rlimits` where it sets none itself."""
    settings, host = container.settings, container.settings.host
    return ContainerSpec(
        id=container.id,
        hostname=container.hostname,
        process=first_process(container, rlimits),
        rootfs=rootfs,
        mounts=mounts,
        domainname=settings.domainname,
        hosts=_hosts_file(container.hostname, settings),
        resolv_conf=_resolv_conf(host, own=host.network != network_mode.HOST),
        shm_size=host.shm_size,
        sysctls=host.sysctls,
        cgroups=cgroups,
    )


def rootfs_of(container: Container, images: Images) -> Rootfs:
    """Its image's layers under its upper directory. Raises NoSuchImage when the image is gone."""
    host = container.settings.host
    return images.rootfs(
        images.get(container.image),
        upper=str(container.upper) if container.keeps_writes else None,
        readonly=host.readonly_rootfs,
        show=host.show,
    )


def mount_plan(container: Container, images: Images) -> list[str]:
    """The mount operations of the next start, in their order, one line each."""
    unopened = -1
    mounts = tuple(
        Mount(
            point.request.target,
            None if point.request.kind == "tmpfs" else unopened,
            point.request.readonly,
            point.request.tmpfs_options,
            copy_on_write=point.request.copy_on_write,
        )
        for point in container.mounts
    )
    spec = container_spec(container, rootfs_of(container, images), mounts)
    return [operation.describe() for operation in plan(spec)]


def default_rlimits(ids: IdMap) -> tuple[Rlimit, ...]:
    """A fork bomb ends at 2048 processes (of each user of the container), as with podman.

    Since Linux 5.14 RLIMIT_NPROC counts within a user namespace: user_namespaces(7). It does not
    bind the machine's own root, whose containers need a limit by cgroup.
    """
    if ids.kind == "root":
        return ()
    _, hard = resource.getrlimit(resource.RLIMIT_NPROC)
    most = _PROCESSES if hard == resource.RLIM_INFINITY else min(_PROCESSES, hard)
    return (("nproc", most, most),)


def first_process(container: Container, rlimits: tuple[Rlimit, ...]) -> Process:
    """The container's command."""
    settings, host = container.settings, container.settings.host
    rows, cols = host.console_size
    own = {name for name, _, _ in host.rlimits}
    return Process(
        args=settings.args,
        env=environment(container, tty=settings.tty),
        cwd=settings.working_dir or "/",
        user=settings.user,
        groups=host.group_add,
        tty=settings.tty,
        rows=rows,
        cols=cols,
        capabilities=DEFAULT_CAPABILITIES if host.capabilities is None else host.capabilities,
        seccomp=host.seccomp,
        no_new_privs=host.no_new_privs,
        rlimits=host.rlimits + tuple(each for each in rlimits if each[0] not in own),
        init=host.init,
        oom_score_adj=host.oom_score_adj,
    )


def environment(container: Container, *, tty: bool, added: tuple[str, ...] = ()) -> tuple[str, ...]:
    """The variables of a process in `container`: Docker's own, the container's, then `added`.

    The launcher adds HOME from the passwd file of the rootfs.
    """
    own = (_PATH, f"HOSTNAME={container.hostname}", *(("TERM=xterm",) if tty else ()))
    return merged_environment(own, container.settings.env + added)


def _hosts_file(hostname: str, settings: Settings) -> str:
    names = f"{hostname}.{settings.domainname} {hostname}" if settings.domainname else hostname
    extra = "".join(f"{address}\t{name}\n" for name, address in settings.host.extra_hosts)
    known = _LOCALHOST
    if settings.host.network == network_mode.HOST:
        known = _of_machine("/etc/hosts") or _LOCALHOST
    return f"{known}127.0.0.1\t{names}\n{extra}"


def _of_machine(path: str) -> str:
    """A small file of this machine, ending with a line; empty where there is none."""
    try:
        with open(path, errors="replace") as file:
            return f"{file.read().rstrip()}\n"
    except OSError:
        return ""


def _resolv_conf(host: HostSettings, *, own: bool) -> str:
    """For a network of its `own`, or for the machine's: resolv.conf(5)."""
    if not (host.dns or host.dns_search or host.dns_options):
        return _NO_DNS if own else _of_machine("/etc/resolv.conf") or _NO_DNS
    lines = [f"nameserver {server}" for server in host.dns]
    if host.dns_search:
        lines.append(f"search {' '.join(host.dns_search)}")
    if host.dns_options:
        lines.append(f"options {' '.join(host.dns_options)}")
    return "\n".join(lines) + "\n"
