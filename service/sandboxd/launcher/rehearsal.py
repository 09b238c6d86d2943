"""A dry run of a start, in the slot, while nobody waits.

After a fork every page that Python first touches is a page fault and a copy, 5 to 10 microseconds
each on a virtual machine, and a start touches more than a hundred. So the slot once walks the whole
way that a request takes, with a root that it throws away, up to what cannot be undone.
"""

from __future__ import annotations

import os
from typing import Final

from sandboxd.launcher import entry, operations, rootfs, wire
from sandboxd.launcher.spec import ContainerSpec, Process, Rootfs
from sandboxd.launcher.stage import Stage
from sandboxd.linux import capabilities

_PLACE: Final = "/sys"
"""A directory of the tree that the slot is about to leave: the whole scene goes with it."""


def rehearse_in_child(stage: Stage, *, single_id: bool) -> None:
    """Build a root, look up its user, and set the credentials that this process has anyway."""
    scene = Stage(stage.base, _PLACE)
    upper = f"{stage.path}/rehearsal"
    os.mkdir(upper)
    plain, _ = _specification(f"{stage.path}/empty", upper).to_wire()
    message, fds = wire.through_a_socket(("start", plain), (0, 1, 2))
    for fd in fds:
        os.close(fd)
    spec = ContainerSpec.from_wire(message[1], [])
    for operation in rootfs.plan(spec):
        if isinstance(operation, (operations.StackLayers, operations.ServiceFile)):
            operation.execute(scene)
    in_memory = spec._replace(rootfs=spec.rootfs._replace(upper=None))
    for operation in rootfs.plan(in_memory):
        if isinstance(operation, operations.SeedServiceFiles):
            operation.execute(scene)
            operation.withdraw(scene)
    entry.rehearse_in_child(spec.process, scene.root, single_id=single_id)
    os.close(scene.root)


def _specification(lower: str, upper: str) -> ContainerSpec:
    process = Process(("true",), ("PATH=/",), capabilities=capabilities.NAMES)
    return ContainerSpec(
        "0", "rehearsal", process, Rootfs((lower,), upper), hosts="h", resolv_conf="r"
    )
