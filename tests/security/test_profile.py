"""The default profile, seen from inside: the same behind every door and under every id map."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from sandboxd.launcher import profile
from sandboxd.linux import capabilities

pytestmark = [pytest.mark.needs_userns, pytest.mark.needs_busybox]

_DEFAULT = {*profile.DEFAULT_CAPABILITIES}
_SETS = ("Inh", "Prm", "Eff", "Bnd", "Amb")


def _status(shell: Any, **options: Any) -> dict[str, str]:
    done = shell("cat /proc/self/status", **options)
    assert done.exit_code == 0, done.stderr
    return dict(re.findall(r"^(\w+):\s+(.*)$", done.stdout.decode(), re.MULTILINE))


def _capabilities(status: dict[str, str]) -> dict[str, set[str]]:
    return {name: {*capabilities.to_names(int(status[f"Cap{name}"], 16))} for name in _SETS}


def test_roots_capabilities(shell: Any) -> None:
    empty: set[str] = set()
    held = {"Inh": empty, "Prm": _DEFAULT, "Eff": _DEFAULT, "Bnd": _DEFAULT, "Amb": empty}
    assert _capabilities(_status(shell)) == held


def test_another_user_holds_none(shell: Any) -> None:
    status = _status(shell, user="1000")
    found = _capabilities(status)
    assert [found[name] for name in ("Inh", "Prm", "Eff", "Amb")] == [set()] * 4
    assert status["Uid"].split() == ["1000"] * 4


def test_another_users_bounding_set(shell: Any) -> None:
    assert _capabilities(_status(shell, user="1000"))["Bnd"] == _DEFAULT


def test_added_and_dropped(shell: Any) -> None:
    added = _capabilities(_status(shell, cap_add=["SYS_NICE", "CAP_MKNOD"]))
    assert added["Eff"] == added["Bnd"] == _DEFAULT | {"SYS_NICE", "MKNOD"}
    dropped = _capabilities(_status(shell, cap_drop=["ALL"], cap_add=["CHOWN"]))
    assert dropped["Eff"] == dropped["Prm"] == dropped["Bnd"] == {"CHOWN"}


def test_no_new_privs_and_the_filter_are_on(shell: Any) -> None:
    for user in ("", "1000"):
        status = _status(shell, user=user)
        assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")


def test_no_group_of_the_host(shell: Any) -> None:
    assert shell("id -G").stdout.split() == [b"0"]


def test_masked_paths_show_nothing(shell: Any) -> None:
    looks = "\n".join(
        f"if [ -d {path} ]; then ls -A {path}; elif [ -e {path} ]; then cat {path}; fi"
        for path in profile.MASKED_PATHS
    )
    done = shell(looks)
    assert (done.stdout, done.stderr) == (b"", b"")


@pytest.mark.parametrize(
    "path",
    [
        "/proc/sys/kernel/core_pattern",
        "/proc/sys/vm/overcommit_memory",
        "/proc/sys/net/ipv4/ip_forward",
        "/proc/sysrq-trigger",
        "/proc/irq/default_smp_affinity",
        "/sys/kernel/uevent_helper",
        "/sys/power/state",
        "/sys/fs/cgroup/cgroup.procs",
        "/sys/class/net/lo/mtu",
    ],
)
def test_the_kernels_switches_cannot_be_written(shell: Any, path: str) -> None:
    done = shell(f"[ -e {path} ] || exit 7; echo 1 > {path}")
    assert done.exit_code in (1, 2, 7), done


def test_the_kernels_file_systems_are_mounted_as_the_profile_says(shell: Any) -> None:
    lines = [line.split() for line in shell("cat /proc/self/mounts").stdout.decode().splitlines()]
    options = {target: (kind, {*given.split(",")}) for _, target, kind, given, *_ in lines}
    hardened = {"nosuid", "nodev", "noexec"}
    for target, kind, extra in (
        ("/proc", "proc", {"rw"}),
        *((path, "proc", {"ro"}) for path in profile.READONLY_PATHS if Path(path).exists()),
        ("/sys", "sysfs", {"ro"}),
        ("/dev/shm", "tmpfs", {"rw"}),
        ("/dev/mqueue", "mqueue", {"rw"}),
    ):
        found, given = options[target]
        assert found == kind
        assert hardened | extra <= given, target
    assert {"nosuid", "noexec"} <= options["/dev"][1]
    assert {"nosuid", "noexec"} <= options["/dev/pts"][1]
    assert "ro" in options.get("/sys/fs/cgroup", ("", {"ro"}))[1]


def test_no_mount_leads_to_the_host(shell: Any) -> None:
    """Every mount is the root, a kernel file system, or a device node; nothing of the store."""
    listed = shell("cat /proc/self/mountinfo").stdout.decode()
    targets = {line.split()[4] for line in listed.splitlines()}
    allowed = re.compile(r"/|/(proc|sys|dev)(/.*)?|/etc/(hosts|hostname|resolv\.conf)")
    assert [target for target in targets if not allowed.fullmatch(target)] == []


def test_devices_are_exactly_the_profiles(shell: Any) -> None:
    names = {*profile.DEVICE_NODES, *profile.DEVICE_LINKS, "pts", "shm", "mqueue"}
    assert {*shell("ls -A /dev").stdout.decode().split()} == names
    script = "cd /dev; for n in *; do [ -c $n -a ! -L $n ] && stat -c '%n %t %T' $n; done; true"
    found = (line.split() for line in shell(script).stdout.decode().splitlines())
    nodes = {name: (int(major, 16), int(minor, 16)) for name, major, minor in found}
    assert nodes == profile.DEVICE_NODES


def test_device_nodes_work(shell: Any) -> None:
    script = "head -c 3 /dev/zero | od -An -tx1; head -c 1 /dev/urandom | wc -c; echo x > /dev/full"
    done = shell(script)
    assert done.stdout.split() == [b"00", b"00", b"00", b"1"]
    assert b"No space left" in done.stderr


def test_a_hosts_device_node_cannot_be_changed(shell: Any) -> None:
    """Bound nodes are the host's inodes: where its root started us, chmod would reach them."""
    masked = [path for path in profile.MASKED_PATHS if Path(path).is_file()]
    for path in (*(f"/dev/{name}" for name in profile.DEVICE_NODES), *masked):
        for change in ("chmod 666", "chown 0:0"):
            assert shell(f"{change} {path}").exit_code != 0, f"{change} {path}"
    assert shell("echo x > /dev/null && head -c 1 /dev/zero").stdout == b"\0"


def test_no_device_can_be_made(shell: Any) -> None:
    for options in ({}, {"cap_add": ["MKNOD"]}):
        assert shell("mknod /tmp/disk b 8 0", **options).exit_code != 0


def test_dev_shm_is_bounded_and_ones_own(shell: Any) -> None:
    script = "stat -c %a /dev/shm; df -k /dev/shm | tail -1 | awk '{print $2}'; ls -A /dev/shm"
    assert shell(script).stdout.split() == [b"1777", b"65536"]
    assert shell(script, shm_size="1m").stdout.split() == [b"1777", b"1024"]


def test_a_program_finds_three_descriptors(python: Any) -> None:
    """CVE-2024-21626: a directory of the host behind a leaked descriptor."""
    code = "import os; print([fd for fd in range(256) if os.path.lexists(f'/proc/self/fd/{fd}')])"
    assert python(code) == "[0, 1, 2]"


def test_names_and_processes_are_ones_own(shell: Any) -> None:
    done = shell("hostname; ls -d /proc/[0-9]* | wc -l; cat /proc/self/cgroup", hostname="mine")
    hostname, count, *cgroups = done.stdout.decode().split()
    assert hostname == "mine"
    assert int(count) <= 5
    assert {line.split(":")[-1] for line in cgroups} <= {"/"}


def test_the_network_is_loopback_alone(shell: Any) -> None:
    done = shell("ls /sys/class/net; ip route; ping -c 1 -W 1 192.0.2.1")
    assert done.stdout.split()[:1] == [b"lo"]
    assert b"unreachable" in done.stderr.lower() or done.exit_code != 0


def test_read_only_is_read_only(shell: Any) -> None:
    done = shell("touch /x; touch /tmp/y; touch /dev/shm/z && echo shm", read_only=True)
    assert done.stdout == b"shm\n"
    assert done.stderr.count(b"Read-only file system") == 2
