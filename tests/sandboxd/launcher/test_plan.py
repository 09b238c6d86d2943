"""Planning needs no kernel: specification in, ordered and printable operations out."""

from __future__ import annotations

import marshal

from sandboxd.launcher.rootfs import plan, plan_on_host
from sandboxd.launcher.spec import ContainerSpec, HostRoot, Mount, Process, Rootfs

HOST = HostRoot(
    overlays=(("usr", "/usr"),), binds=("opt",), links=(("bin", "usr/bin"),), empty=("tmp",)
)


def _spec(rootfs: Rootfs, *mounts: Mount) -> ContainerSpec:
    return ContainerSpec(
        "c", "name", Process(("true",)), rootfs, mounts, hosts="h", resolv_conf="r"
    )


def _kinds(spec: ContainerSpec) -> list[str]:
    return [type(operation).__name__ for operation in plan(spec)]


def test_layers_then_kernel_file_systems_then_mounts_then_the_root() -> None:
    spec = _spec(Rootfs(("/a", "/b"), "/upper", readonly=True), Mount("/v/deep"), Mount("/v"))
    assert _kinds(spec) == [
        "StackLayers",
        *["AttachPart"] * 3,
        *["ServiceFile"] * 3,
        *["AttachMount"] * 2,
        "SealRoot",
        "EnterRoot",
    ]
    mounted = [each.describe() for each in plan(spec) if type(each).__name__ == "AttachMount"]
    assert mounted == ["tmpfs on /v: read-write", "tmpfs on /v/deep: read-write"]


def test_files_are_seeded_only_into_an_upper_that_nobody_will_see() -> None:
    assert _kinds(_spec(Rootfs(("/a",))))[0] == "SeedServiceFiles"
    assert "SeedServiceFiles" not in _kinds(_spec(Rootfs(("/a",), "/upper")))


def test_a_mount_on_a_service_file_replaces_it() -> None:
    spec = _spec(Rootfs(("/a",), "/upper"), Mount("/etc/hosts", 3, is_file=True))
    assert _kinds(spec).count("ServiceFile") == 2


def test_the_host_assembled_ahead_leaves_only_what_is_inside() -> None:
    spec = _spec(Rootfs(host=HOST))
    assert _kinds(spec)[:3] == ["HostSkeleton", "HostOverlay", "HostBind"]
    assert "HostSkeleton" not in [type(each).__name__ for each in plan_on_host(spec)]


def test_a_specification_survives_the_wire() -> None:
    spec = _spec(Rootfs(host=HOST), Mount("/v", 9, readonly=True), Mount("/t"), Mount("/w", 11))
    plain, fds = spec.to_wire()
    assert fds == [9, 11]
    arrived = ContainerSpec.from_wire(marshal.loads(marshal.dumps(plain)), [20, 21])
    assert [each.source_fd for each in arrived.mounts] == [20, None, 21]
    assert arrived._replace(mounts=spec.mounts) == spec


def test_what_is_hidden_above_a_shown_path_comes_before_it() -> None:
    host = HOST._replace(show=("/var/tmp/project",), hide=("/var/tmp", "/var/tmp/project/state"))
    described = [each.describe() for each in plan(_spec(Rootfs(host=host)))]
    order = [line for line in described if "/var/tmp" in line]
    assert order == [
        "empty on /var/tmp",
        "bind on /var/tmp/project: read-only, recursive",
        "empty on /var/tmp/project/state",
    ]
