"""From facts to checks, for machines that are not this one."""

from __future__ import annotations

import errno
from typing import Any

import pytest

from sandboxd.doctor import report
from sandboxd.doctor.checks import Check, judge
from sandboxd.doctor.facts import Facts
from sandboxd.doctor.probes import Outcome

_GOOD = Outcome(True, "")
_PROBES = (
    "user namespace",
    "id map",
    "calls",
    "openat2",
    "overlay in memory",
    "attributes",
    "overlay",
    "whiteout",
    "namespaces",
    "proc",
    "kernel file systems",
)
_USERMOD = "sudo usermod --add-subuids 165536-231071 --add-subgids 165536-231071 ann"
_RELAXED = (
    "docker run --security-opt seccomp=unconfined --security-opt apparmor=unconfined"
    " --security-opt systempaths=unconfined IMAGE"
)


def _machine(*failing: str, error: int = errno.EPERM, **changes: Any) -> Facts:
    outcomes = dict.fromkeys(_PROBES, _GOOD)
    outcomes |= dict.fromkeys(failing, Outcome(False, "refused", error))
    facts = Facts(
        machine="x86_64",
        release="6.8.0-45-generic",
        uid=1000,
        user="ann",
        sysctls={"user.max_user_namespaces": "127000"},
        seccomp=0,
        no_new_privs=False,
        map_tools={"newuidmap": "ok", "newgidmap": "ok"},
        tool_package="sudo apt-get install -y uidmap",
        ranges=True,
        free_range=(165536, 231071),
        kind="subids",
        cgroups=("memory", "pids", "cpu"),
        user_manager=True,
        state="/home/ann",
        outcomes=outcomes,
    )
    return facts._replace(**changes)


def _check(facts: Facts, name: str) -> Check:
    return next(check for check in judge(facts) if check.name == name)


def test_a_good_machine_lacks_nothing() -> None:
    assert [check for check in judge(_machine()) if not check.ok or check.mend] == []


@pytest.mark.parametrize(
    ("facts", "name", "mend"),
    [
        (
            _machine(*_PROBES, sysctls={"kernel.apparmor_restrict_unprivileged_userns": "1"}),
            "AppArmor",
            "sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0",
        ),
        (
            _machine(*_PROBES, sysctls={"kernel.unprivileged_userns_clone": "0"}),
            "unprivileged user namespaces",
            "sudo sysctl -w kernel.unprivileged_userns_clone=1",
        ),
        (
            _machine(*_PROBES, sysctls={"user.max_user_namespaces": "0"}),
            "user namespace limit",
            "sudo sysctl -w user.max_user_namespaces=28633",
        ),
        (_machine(*_PROBES, seccomp=2), "outer seccomp", _RELAXED),
    ],
)
def test_the_cause_of_missing_user_namespaces_is_named(facts: Facts, name: str, mend: str) -> None:
    assert _check(facts, name) == (name, False, True, _check(facts, name).detail, mend)
    assert _check(facts, "user namespaces").mend == mend
    assert _check(facts, "namespaces").mend == mend
    assert not report_passes(facts)


def report_passes(facts: Facts) -> bool:
    return all(check.ok or not check.required for check in judge(facts))


def test_a_restriction_that_lets_us_pass_is_none() -> None:
    facts = _machine(sysctls={"kernel.apparmor_restrict_unprivileged_userns": "1"}, seccomp=2)
    assert all(check.ok for check in judge(facts))


@pytest.mark.parametrize(
    ("changes", "mend"),
    [
        ({"ranges": False, "kind": "single"}, _USERMOD),
        (
            {"map_tools": {"newuidmap": "missing", "newgidmap": "missing"}, "kind": "single"},
            "sudo apt-get install -y uidmap",
        ),
        (
            {"map_tools": {"newuidmap": "powerless", "newgidmap": "powerless"}},
            "sudo chmod u+s $(command -v newuidmap) $(command -v newgidmap)",
        ),
    ],
)
def test_subordinate_ids_are_wanted_but_not_needed(changes: dict[str, Any], mend: str) -> None:
    facts = _machine(**changes)
    check = _check(facts, "subordinate ids")
    assert (check.ok, check.required, check.mend) == (False, False, mend)
    assert report_passes(facts)


def test_root_needs_no_subordinate_ids() -> None:
    facts = _machine(uid=0, kind="root", ranges=False, map_tools={"newuidmap": "missing"})
    assert _check(facts, "subordinate ids").ok


def test_a_map_that_cannot_be_written_is_fatal() -> None:
    facts = _machine("id map", no_new_privs=True)
    check = _check(facts, "id map")
    assert (check.ok, check.required) == (False, True)
    assert "no_new_privs" in check.detail
    assert check.mend == "export SANDBOX_IDMAP=single"


@pytest.mark.parametrize(
    ("probe", "name", "part"),
    [
        ("proc", "proc", "systempaths=unconfined"),
        ("overlay", "overlay", "SANDBOX_ROOT"),
        ("whiteout", "whiteouts", "SANDBOX_ROOT"),
        ("calls", "system calls", "seccomp=unconfined"),
    ],
)
def test_a_failing_probe_is_required_and_mended(probe: str, name: str, part: str) -> None:
    check = _check(_machine(probe), name)
    assert (check.ok, check.required, check.detail) == (False, True, "refused")
    assert part in check.mend


@pytest.mark.parametrize(
    ("probe", "name"), [("attributes", "tmpfs attributes"), ("openat2", "openat2")]
)
def test_some_lacks_can_be_lived_with(probe: str, name: str) -> None:
    facts = _machine(probe)
    assert not _check(facts, name).ok
    assert report_passes(facts)


def test_limits_need_a_delegated_unit() -> None:
    check = _check(_machine(cgroups=("pids",)), "cgroups")
    assert (check.ok, check.required) == (False, False)
    assert check.detail == "no limit on memory and cpu can be enforced"
    assert check.mend.startswith("systemd-run --user --unit=sandboxd -p Delegate=yes ")


@pytest.mark.parametrize(
    ("release", "machine", "fit"),
    [
        ("5.12.0", "x86_64", True),
        ("6.1.0-18-amd64", "aarch64", True),
        ("5.11.22", "x86_64", False),
        ("4.18.0-553.el8", "x86_64", False),
        ("10.0", "x86_64", True),
        ("6.8.0", "riscv64", False),
    ],
)
def test_the_kernel_must_be_new_enough(release: str, machine: str, fit: bool) -> None:
    check = _check(_machine(release=release, machine=machine), "kernel")
    assert (check.ok, bool(check.mend)) == (fit, not fit)


def test_the_same_command_is_printed_once() -> None:
    text = report.lines(judge(_machine(*_PROBES, seccomp=2)), passed=False)
    assert text.count("mend: docker run") == 1
    assert text.endswith("containers cannot run: mend what is missing\n")
