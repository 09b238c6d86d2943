"""The JSON bodies of the Docker routes, field by field (API 1.45).

Every field that Docker knows is listed, also those that this service cannot serve: the engine must
see them to refuse them, rather than drop a limit in silence. Fields unknown to Docker are ignored.
"""

from __future__ import annotations

from sandboxd.api.shapes import (
    anything,
    argv,
    flag,
    integer,
    items,
    labels,
    mapping,
    number,
    record,
    text,
)

_texts = items(text)

_HEALTHCHECK = record(
    Test=_texts, Interval=integer, Timeout=integer, StartPeriod=integer, StartInterval=integer,
    Retries=integer,
)  # fmt: skip

_MOUNT = record(
    Type=text,
    Source=text,
    Target=text,
    ReadOnly=flag,
    Consistency=text,
    BindOptions=record(
        Propagation=text, NonRecursive=flag, CreateMountpoint=flag, ReadOnlyNonRecursive=flag,
        ReadOnlyForceRecursive=flag,
    ),
    VolumeOptions=record(
        NoCopy=flag, Labels=labels, Subpath=text, DriverConfig=record(Name=text, Options=labels)
    ),
    TmpfsOptions=record(SizeBytes=integer, Mode=integer, Options=items(_texts)),
    ClusterOptions=anything,
    Sandbox=record(CopyOnWrite=flag),
)  # fmt: skip

_DEVICE = record(PathOnHost=text, PathInContainer=text, CgroupPermissions=text)
_DEVICE_REQUEST = record(
    Driver=text, Count=integer, DeviceIDs=_texts, Capabilities=items(_texts), Options=labels
)
_THROTTLES = items(record(Path=text, Rate=integer))

_RESOURCES = {
    "CpuShares": integer, "Memory": integer, "NanoCpus": integer, "CgroupParent": text,
    "BlkioWeight": integer, "BlkioWeightDevice": items(record(Path=text, Weight=integer)),
    "BlkioDeviceReadBps": _THROTTLES, "BlkioDeviceWriteBps": _THROTTLES,
    "BlkioDeviceReadIOps": _THROTTLES, "BlkioDeviceWriteIOps": _THROTTLES,
    "CpuPeriod": integer, "CpuQuota": integer, "CpuRealtimePeriod": integer,
    "CpuRealtimeRuntime": integer, "CpusetCpus": text, "CpusetMems": text,
    "Devices": items(_DEVICE), "DeviceCgroupRules": _texts,
    "DeviceRequests": items(_DEVICE_REQUEST), "KernelMemory": integer,
    "KernelMemoryTCP": integer, "MemoryReservation": integer, "MemorySwap": integer,
    "MemorySwappiness": integer, "OomKillDisable": flag, "PidsLimit": integer,
    "Ulimits": items(record(Name=text, Soft=integer, Hard=integer)),
}  # fmt: skip

HOST_CONFIG = record(
    **_RESOURCES,
    Binds=_texts,
    ContainerIDFile=text,
    LogConfig=record(Type=text, Config=labels),
    NetworkMode=text,
    PortBindings=mapping(items(record(HostIp=text, HostPort=text))),
    RestartPolicy=record(Name=text, MaximumRetryCount=integer),
    AutoRemove=flag,
    VolumeDriver=text,
    VolumesFrom=_texts,
    ConsoleSize=items(integer),
    Annotations=labels,
    CapAdd=argv,
    CapDrop=argv,
    CgroupnsMode=text,
    Dns=_texts,
    DnsOptions=_texts,
    DnsSearch=_texts,
    ExtraHosts=_texts,
    GroupAdd=_texts,
    IpcMode=text,
    Cgroup=text,
    Links=_texts,
    OomScoreAdj=integer,
    PidMode=text,
    Privileged=flag,
    PublishAllPorts=flag,
    ReadonlyRootfs=flag,
    SecurityOpt=_texts,
    StorageOpt=labels,
    Tmpfs=labels,
    UTSMode=text,
    UsernsMode=text,
    ShmSize=integer,
    Sysctls=labels,
    Runtime=text,
    Isolation=text,
    Mounts=items(_MOUNT),
    MaskedPaths=_texts,
    ReadonlyPaths=_texts,
    Init=flag,
    SandboxShow=_texts,
)

_ENDPOINT = record(
    IPAMConfig=record(IPv4Address=text, IPv6Address=text, LinkLocalIPs=_texts),
    Links=_texts,
    Aliases=_texts,
    MacAddress=text,
    DriverOpts=labels,
    NetworkID=text,
)

_CONFIG = {
    "Hostname": text, "Domainname": text, "User": text, "AttachStdin": flag,
    "AttachStdout": flag, "AttachStderr": flag, "ExposedPorts": mapping(anything), "Tty": flag,
    "OpenStdin": flag, "StdinOnce": flag, "Env": _texts, "Cmd": argv,
    "Healthcheck": _HEALTHCHECK, "ArgsEscaped": flag, "Image": text,
    "Volumes": mapping(anything), "WorkingDir": text, "Entrypoint": argv,
    "NetworkDisabled": flag, "MacAddress": text, "OnBuild": _texts, "Labels": labels,
    "StopSignal": text, "StopTimeout": integer, "Shell": argv,
}  # fmt: skip

_CONTAINER = {
    **_CONFIG,
    "HostConfig": HOST_CONFIG,
    "NetworkingConfig": record(EndpointsConfig=mapping(_ENDPOINT)),
}

CONTAINER_CREATE = record(**_CONTAINER)
"""POST /containers/create"""

COMMIT = record(**_CONFIG)
"""POST /commit"""

EXEC_CREATE = record(
    User=text, Privileged=flag, Tty=flag, ConsoleSize=items(integer), AttachStdin=flag,
    AttachStderr=flag, AttachStdout=flag, Detach=flag, DetachKeys=text, Env=_texts,
    WorkingDir=text, Cmd=argv,
)  # fmt: skip
"""POST /containers/{id}/exec"""

EXEC_START = record(Detach=flag, Tty=flag, ConsoleSize=items(integer))
"""POST /exec/{id}/start"""

VOLUME_CREATE = record(
    Name=text,
    Driver=text,
    DriverOpts=labels,
    Labels=labels,
    ClusterVolumeSpec=anything,
    Sandbox=record(Snapshot=text, Scratch=flag),
)
"""POST /volumes/create; `Sandbox` is this service's own."""

SANDBOX_RUN = record(**_CONTAINER, Timeout=number, Stdin=text)
"""POST /sandbox/run"""

SANDBOX_EXEC = record(Cmd=argv, Env=_texts, User=text, WorkingDir=text, Timeout=number, Stdin=text)
"""POST /sandbox/containers/{id}/exec"""

RECIPE = record(
    Image=text,
    Steps=items(record(Cmd=argv, User=text, WorkingDir=text, Env=_texts)),
    Files=mapping(record(Content=text, Mode=integer)),
    Env=_texts,
    User=text,
    Target=text,
    Base=text,
    Binds=_texts,
    SandboxShow=_texts,
)
"""POST /sandbox/recipes"""

BUILD = record(
    Context=text,
    Dockerfile=text,
    DockerfileText=text,
    Tags=_texts,
    Target=text,
    Platform=text,
    BuildArgs=mapping(text),
    Labels=labels,
    Secrets=mapping(text),
    Network=text,
    NoCache=flag,
    Pull=flag,
)
"""POST /sandbox/build"""

SEAL = record(Volume=text, Spec=mapping(anything))
"""POST /sandbox/snapshots/{key}/seal"""

SNAPSHOT_PUSH = record(Key=text, Reference=text)
"""POST /sandbox/snapshots/push"""

SNAPSHOT_PULL = record(Key=text, Reference=text)
"""POST /sandbox/snapshots/pull"""
