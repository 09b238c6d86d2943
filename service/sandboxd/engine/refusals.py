"""What a HostConfig may not ask for yet, as data: better refused than dropped in silence.

A client sends every field with its zero or its default; those ask for nothing and pass.
"""

from __future__ import annotations

from dataclasses import dataclass

from sandboxd.engine.fields import Fields
from sandboxd.errors import CannotEnforce

_NETWORKS = "a container's network is its own and empty until the networks issue"
_NAMESPACE = "every container has namespaces of its own"
_RAW_DEVICE = "a user namespace gives no access to devices"
_NO_CONTROLLER = "no cgroup controller for it is used"


@dataclass(frozen=True, slots=True)
class Refusal:
    """A field, the values beside zero and null that ask for nothing, and why others are refused."""

    field: str
    why: str
    harmless: frozenset[object] = frozenset()
    mend: str = ""


_FIELDS: tuple[Refusal, ...] = (
    Refusal("Privileged", "a container never gets more than its user has", mend="cap_add"),
    Refusal("PortBindings", _NETWORKS, mend="a unix socket on a shared volume"),
    Refusal("PublishAllPorts", _NETWORKS, mend="a unix socket on a shared volume"),
    Refusal("Links", _NETWORKS),
    Refusal("IpcMode", _NAMESPACE, frozenset({"private", "shareable"})),
    Refusal("PidMode", _NAMESPACE, frozenset({"private"})),
    Refusal("UTSMode", _NAMESPACE),
    Refusal("UsernsMode", _NAMESPACE),
    Refusal("CgroupnsMode", _NAMESPACE, frozenset({"private"})),
    Refusal("CgroupParent", "containers lie below the service's own cgroup"),
    Refusal("Cgroup", "containers lie below the service's own cgroup"),
    Refusal("Devices", _RAW_DEVICE),
    Refusal("DeviceRequests", _RAW_DEVICE),
    Refusal("DeviceCgroupRules", _RAW_DEVICE),
    Refusal("Runtime", "there is one runtime", frozenset({"runc", "sandboxd"})),
    Refusal("OomKillDisable", "memory.max always ends in a kill"),
    Refusal("MemoryReservation", _NO_CONTROLLER, mend="--memory"),
    Refusal("MemorySwappiness", _NO_CONTROLLER, frozenset({-1}), "--memory-swap"),
    Refusal("KernelMemory", "the kernel has dropped it", mend="--memory"),
    Refusal("KernelMemoryTCP", "the kernel has dropped it", mend="--memory"),
    Refusal("CpuRealtimePeriod", _NO_CONTROLLER, mend="--cpus"),
    Refusal("CpuRealtimeRuntime", _NO_CONTROLLER, mend="--cpus"),
    Refusal("CpusetCpus", _NO_CONTROLLER, mend="--cpus"),
    Refusal("CpusetMems", _NO_CONTROLLER),
    Refusal("CpuCount", "it is for Windows", mend="--cpus"),
    Refusal("CpuPercent", "it is for Windows", mend="--cpus"),
    Refusal("IOMaximumIOps", "it is for Windows"),
    Refusal("IOMaximumBandwidth", "it is for Windows"),
    Refusal("BlkioWeight", _NO_CONTROLLER),
    Refusal("BlkioWeightDevice", _NO_CONTROLLER),
    Refusal("BlkioDeviceReadBps", _NO_CONTROLLER),
    Refusal("BlkioDeviceWriteBps", _NO_CONTROLLER),
    Refusal("BlkioDeviceReadIOps", _NO_CONTROLLER),
    Refusal("BlkioDeviceWriteIOps", _NO_CONTROLLER),
    Refusal("MaskedPaths", "the default profile masks a fixed list"),
    Refusal("ReadonlyPaths", "the default profile protects a fixed list"),
    Refusal("Isolation", "it is for Windows", frozenset({"default"})),
    Refusal("CredentialSpec", "it is for Windows"),
)


def refuse_unenforceable(host: Fields) -> None:
    """Raises CannotEnforce for the first field that asks for what nobody would enforce."""
    for refusal in _FIELDS:
        value = host.get(refusal.field)
        if value and not (isinstance(value, str | int) and value in refusal.harmless):
            raise CannotEnforce(f"{refusal.field}={value!r}", refusal.why, refusal.mend)
    _refuse_restarts(host)
    _refuse_log_driver(host)


def _refuse_restarts(host: Fields) -> None:
    name = host.object("RestartPolicy").text("Name")
    if name not in ("", "no"):
        why = "a container that ends stays ended, so that a test sees it"
        raise CannotEnforce(f"RestartPolicy={name!r}", why, "--restart no")


def _refuse_log_driver(host: Fields) -> None:
    name = host.object("LogConfig").text("Type")
    if name not in ("", "json-file", "local", "none"):
        why = "logs are kept by the service itself"
        raise CannotEnforce(f"LogConfig.Type={name!r}", why, "--log-driver json-file")


def refuse_networks(networking: Fields) -> None:
    """Raises CannotEnforce for an endpoint in any network but the default one."""
    for name in networking.mapping("EndpointsConfig"):
        if name not in ("default", "bridge", "none"):
            raise CannotEnforce(f"network {name!r}", _NETWORKS, "--network none")
