"""The launcher's specification of a container, from its settings. Nothing is done here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sandboxd.engine.configuration import merged_environment
from sandboxd.engine.container import Container
from sandboxd.engine.settings import HostSettings, Settings
from sandboxd.launcher.profile import DEFAULT_CAPABILITIES
from sandboxd.launcher.rootfs import plan
from sandboxd.launcher.spec import ContainerSpec, Mount, Process, Rootfs

if TYPE_CHECKING:
    from sandboxd.images import Images

_PATH: Final = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_LOCALHOST: Final = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n"
_NO_DNS: Final = "# no network, no name server\n"


def container_spec(
    container: Container, rootfs: Rootfs, mounts: tuple[Mount, ...], cgroups: tuple[str, ...] = ()
) -> ContainerSpec:
    """What the launcher is asked to start for `container`."""
    settings, host = container.settings, container.settings.host
    return ContainerSpec(
        id=container.id,
        hostname=container.hostname,
        process=first_process(container),
        rootfs=rootfs,
        mounts=mounts,
        domainname=settings.domainname,
        hosts=_hosts_file(container.hostname, settings),
        resolv_conf=_resolv_conf(host),
        shm_size=host.shm_size,
        sysctls=host.sysctls,
        cgroups=cgroups,
    )


def rootfs_of(container: Container, images: Images) -> Rootfs:
    """Its image's layers under its upper directory. Raises NoSuchImage when the image is gone."""
    host = container.settings.host
    return images.rootfs(
        images.get(container.image),
        upper=None if container.throwaway else str(container.upper),
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
        )
        for point in container.mounts
    )
    spec = container_spec(container, rootfs_of(container, images), mounts)
    return [operation.describe() for operation in plan(spec)]


def first_process(container: Container) -> Process:
    """The container's command."""
    settings, host = container.settings, container.settings.host
    rows, cols = host.console_size
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
        rlimits=host.rlimits,
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
    return f"{_LOCALHOST}127.0.0.1\t{names}\n{extra}"


def _resolv_conf(host: HostSettings) -> str:
    if not (host.dns or host.dns_search or host.dns_options):
        return _NO_DNS
    lines = [f"nameserver {server}" for server in host.dns]
    if host.dns_search:
        lines.append(f"search {' '.join(host.dns_search)}")
    if host.dns_options:
        lines.append(f"options {' '.join(host.dns_options)}")
    return "\n".join(lines) + "\n"
