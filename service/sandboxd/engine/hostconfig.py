"""HostConfig of a create body: what is enforced, typed; what is not, refused."""

from __future__ import annotations

import ipaddress
import re
from typing import Final

from sandboxd.engine import network_mode
from sandboxd.engine.fields import Fields
from sandboxd.engine.mountpoints import mount_requests
from sandboxd.engine.refusals import refuse_unenforceable
from sandboxd.engine.settings import HostSettings, Limits
from sandboxd.errors import BadRequest, CannotEnforce
from sandboxd.launcher.profile import DEFAULT_CAPABILITIES
from sandboxd.linux.capabilities import NAMES

_SYSCTLS: Final = ("net.", "fs.mqueue.", "kernel.shm", "kernel.msg", "kernel.sem")
_SIZE: Final = re.compile(r"(\d+)\s*([kmg]?)b?", re.IGNORECASE)
_UNITS: Final = {"": 0, "k": 10, "m": 20, "g": 30}
_UNLIMITED: Final = -1
_MEMORY_MIN: Final = 6 << 20
_NOTHING_ASKED: Final = HostSettings()


def parse_host(host: Fields) -> HostSettings:
    """The typed HostConfig. Raises BadRequest, or CannotEnforce for what nobody would enforce."""
    if not host:
        return _NOTHING_ASKED
    refuse_unenforceable(host)
    seccomp, no_new_privs = _security(host.texts("SecurityOpt"))
    network = network_mode.parse(host.text("NetworkMode"))
    sysctls = _sysctls(host.labels("Sysctls"))
    network_mode.refuse_sysctls(network, sysctls)
    return HostSettings(
        mounts=mount_requests(host),
        volumes_from=host.texts("VolumesFrom"),
        auto_remove=host.flag("AutoRemove"),
        readonly_rootfs=host.flag("ReadonlyRootfs"),
        capabilities=_capabilities(host.command("CapAdd"), host.command("CapDrop")),
        seccomp=seccomp,
        no_new_privs=no_new_privs,
        group_add=host.texts("GroupAdd"),
        extra_hosts=tuple(_extra_host(entry) for entry in host.texts("ExtraHosts")),
        dns=tuple(_address(server) for server in host.texts("Dns")),
        dns_options=_words(host.texts("DnsOptions")),
        dns_search=_words(host.texts("DnsSearch")),
        shm_size=_shm_size(host.integer("ShmSize")),
        sysctls=sysctls,
        network=network,
        rlimits=tuple(_ulimit(entry) for entry in host.objects("Ulimits")),
        oom_score_adj=_oom_score_adj(host.integer("OomScoreAdj")),
        init=host.flag("Init"),
        console_size=_console_size(host),
        log_limit=_log_limit(host.object("LogConfig")),
        limits=_limits(host),
        upper=_upper(host.labels("StorageOpt")),
        show=_shown(host.texts("SandboxShow")),
    )


def _security(options: tuple[str, ...]) -> tuple[bool, bool]:
    """Whether the seccomp filter and no_new_privs stay on."""
    seccomp, no_new_privs = True, True
    for option in options:
        name, _, value = option.replace(":", "=", 1).partition("=")
        if name == "no-new-privileges" and value in ("", "true", "false"):
            no_new_privs = value != "false"
        elif (name, value) == ("seccomp", "unconfined"):
            seccomp = False
        elif (name, value) not in _HARMLESS_SECURITY:
            raise CannotEnforce(f"SecurityOpt {option!r}", "only the default profile is enforced")
    return seccomp, no_new_privs


_HARMLESS_SECURITY: Final = frozenset(
    {("apparmor", "unconfined"), ("label", "disable"), ("seccomp", "builtin")}
)
"""They ask for less than there is: neither AppArmor nor SELinux confines a container here."""


def _upper(options: dict[str, str]) -> str:
    for name in options.keys() - {"upper"}:
        why, mend = "the writable layer has no quota", "a tmpfs or volume with a size"
        raise CannotEnforce(f"StorageOpt {name}", why, mend)
    upper = options.get("upper", "")
    if upper not in ("", "disk", "memory"):
        raise BadRequest(f"invalid storage option upper={upper!r}", "it is disk or memory")
    return upper


def _capabilities(add: tuple[str, ...], drop: tuple[str, ...]) -> tuple[str, ...] | None:
    if not add and not drop:
        return None
    added, dropped = _capability_names(add, "CapAdd"), _capability_names(drop, "CapDrop")
    if "ALL" in added:
        kept = set(NAMES) - dropped
    elif "ALL" in dropped:
        kept = added
    else:
        kept = (set(DEFAULT_CAPABILITIES) - dropped) | added
    return tuple(name for name in NAMES if name in kept)


def _capability_names(names: tuple[str, ...], field: str) -> set[str]:
    plain = {name.upper().removeprefix("CAP_") for name in names}
    for name in plain - {"ALL", *NAMES}:
        raise BadRequest(f'invalid {field}: unknown capability: "CAP_{name}"')
    return plain


def _extra_host(entry: str) -> tuple[str, str]:
    """`name:address` or `name=address`; an IPv6 address may stand in brackets."""
    name, separator, address = entry.partition("=") if "=" in entry else entry.partition(":")
    if not separator or len(name.split()) != 1:
        raise BadRequest(f"bad format for add-host: {entry!r}")
    if address == "host-gateway":
        raise CannotEnforce(f"ExtraHosts {entry!r}", "there is no network to the host")
    return name, _address(address.removeprefix("[").removesuffix("]"))


def _words(entries: tuple[str, ...]) -> tuple[str, ...]:
    """Entries of resolv.conf(5), where white space separates."""
    for entry in entries:
        if len(entry.split()) != 1:
            raise BadRequest(f"invalid DNS option or domain: {entry!r}")
    return entries


def _address(text: str) -> str:
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        raise BadRequest(f"invalid IP address: {text!r}") from None


def _shm_size(size: int) -> int:
    if size < 0:
        raise BadRequest("SHM size can not be less than 0")
    return size or _NOTHING_ASKED.shm_size


def _sysctls(wanted: dict[str, str]) -> tuple[tuple[str, str], ...]:
    for name in wanted:
        if not name.startswith(_SYSCTLS) or "/" in name or ".." in name:
            raise CannotEnforce(f"sysctl {name!r}", "it is not one of a container's namespaces")
    return tuple(wanted.items())


def _ulimit(entry: Fields) -> tuple[str, int, int]:
    name, soft, hard = entry.text("Name"), entry.integer("Soft"), entry.integer("Hard")
    if not name.isalpha():
        raise BadRequest(f"invalid ulimit type: {name!r}")
    if hard != _UNLIMITED and (soft > hard or soft == _UNLIMITED):
        raise BadRequest(f"ulimit soft limit must be less than or equal to hard limit: {name}")
    return name.lower(), soft, hard


def _oom_score_adj(score: int) -> int | None:
    if not -1000 <= score <= 1000:
        raise BadRequest(f"Invalid value {score}, range for oom score adj is [-1000, 1000]")
    return score or None


def _console_size(host: Fields) -> tuple[int, int]:
    return console_size(host.get("ConsoleSize"), "HostConfig.ConsoleSize")


def console_size(value: object, where: str) -> tuple[int, int]:
    """Rows and columns from `[height, width]`; nothing is (0, 0). Raises BadRequest."""
    if not value:
        return 0, 0
    if (
        not isinstance(value, list | tuple)
        or len(value) != 2
        or not all(isinstance(number, int) and 0 <= number < 1 << 16 for number in value)
    ):
        raise BadRequest("invalid JSON", f"{where} must be a list of two sizes, rows and columns")
    return value[0], value[1]


def _log_limit(config: Fields) -> int:
    if config.text("Type") == "none":
        return -1
    options = config.labels("Config")
    size = options.get("max-size", "")
    if size in ("", "-1"):
        return 0
    match = _SIZE.fullmatch(size)
    files = options.get("max-file", "") or "1"
    if not match or not files.isdecimal() or not int(files):
        raise BadRequest(f"invalid log options max-size={size!r} max-file={files!r}")
    return (int(match[1]) << _UNITS[match[2].lower()]) * int(files)


def _limits(host: Fields) -> Limits:
    memory, swap = host.integer("Memory"), host.integer("MemorySwap")
    if memory and memory < _MEMORY_MIN:
        raise BadRequest("Minimum memory limit allowed is 6MB")
    if swap > 0 and not memory:
        raise BadRequest("You should always set the Memory limit when using Memoryswap limit")
    if 0 < swap < memory:
        raise BadRequest("Minimum memoryswap limit should be larger than memory limit")
    quota, period = host.integer("CpuQuota"), host.integer("CpuPeriod") or 100_000
    if nano := host.integer("NanoCpus"):
        if quota:
            raise BadRequest("Conflicting options: Nano CPUs and CPU Quota cannot both be set")
        quota = nano * period // 1_000_000_000
    if quota < _UNLIMITED or 0 < quota < 1000:
        raise BadRequest("CPU cfs quota can not be less than 1ms (i.e. 1000)")
    if not 1000 <= period <= 1_000_000:
        raise BadRequest("CPU cfs period can not be less than 1ms or larger than 1s")
    return Limits(
        memory=max(memory, 0),
        memory_swap=swap if memory > 0 else 0,
        pids=max(host.integer("PidsLimit"), 0),
        cpu_quota=max(quota, 0),
        cpu_period=period,
        cpu_shares=max(host.integer("CpuShares"), 0),
    )


def _shown(paths: tuple[str, ...]) -> tuple[str, ...]:
    for path in paths:
        if not path.startswith("/") or ".." in path.split("/"):
            raise BadRequest(f"SandboxShow {path!r}", "an absolute path without '..' is needed")
    return paths
