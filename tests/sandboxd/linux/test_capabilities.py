"""Capability sets of a process that holds all of them in its own user namespace."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from sandboxd.errors import BadRequest
from sandboxd.launcher.profile import DEFAULT_CAPABILITIES
from sandboxd.linux import capabilities
from sandboxd.linux.idmap import IdMap

_HEADER = Path("/usr/include/linux/capability.h")


def _sets(status: str) -> dict[str, tuple[str, ...]]:
    """Inh, Prm, Eff, Bnd, Amb of proc_pid_status(5)."""
    lines = re.findall(r"^Cap(\w+):\s+(\w+)$", status, re.MULTILINE)
    return {name: capabilities.to_names(int(mask, 16)) for name, mask in lines}


def _status() -> dict[str, tuple[str, ...]]:
    return _sets(Path("/proc/self/status").read_text())


def test_the_table_is_the_kernels() -> None:
    if not _HEADER.exists():
        pytest.skip("no kernel headers")
    defined = re.findall(r"^#define CAP_(\w+)\s+(\d+)$", _HEADER.read_text(), re.MULTILINE)
    assert [name for name, _ in sorted(defined, key=lambda pair: int(pair[1]))] == [
        *capabilities.NAMES
    ]


def test_last_cap_is_at_least_what_we_name() -> None:
    assert capabilities.last_cap() == len(capabilities.NAMES) - 1


@pytest.mark.parametrize("name", ["CHOWN", "chown", "CAP_CHOWN", "cap_chown"])
def test_every_spelling_is_one_name(name: str) -> None:
    assert capabilities.canonical(name) == "CHOWN"


@pytest.mark.parametrize("name", ["", "CAP_", "CHOWNN", "ALL", "cap_cap_chown", "0", "CHOWN\0"])
def test_an_unknown_name_is_a_bad_request(name: str) -> None:
    with pytest.raises(BadRequest, match="invalid capability"):
        capabilities.canonical(name)


def test_masks_and_names_are_inverse() -> None:
    assert capabilities.to_mask(("CHOWN", "CAP_CHOWN", "KILL")) == 0b100001
    assert capabilities.to_names(capabilities.to_mask(capabilities.NAMES)) == capabilities.NAMES
    assert capabilities.to_names(1 << 63) == ("63",)
    assert capabilities.to_names(0) == ()


@pytest.mark.needs_userns
@pytest.mark.outer
def test_the_sets_become_exactly_what_was_asked(ids: IdMap) -> None:
    capabilities.drop_bounding(DEFAULT_CAPABILITIES)
    capabilities.set_exactly(DEFAULT_CAPABILITIES)
    asked = {*DEFAULT_CAPABILITIES}
    found = {name: {*names} for name, names in _status().items()}
    assert found == {"Inh": set(), "Prm": asked, "Eff": asked, "Bnd": asked, "Amb": set()}
    assert capabilities.capget() == (*[capabilities.to_mask(asked)] * 2, 0)
    assert capabilities.bounding() == capabilities.to_mask(asked)


@pytest.mark.needs_userns
@pytest.mark.outer
def test_what_was_given_up_does_not_come_back() -> None:
    capabilities.drop_bounding(("CHOWN",))
    capabilities.set_exactly(("CHOWN",))
    for names in (("KILL",), capabilities.NAMES):
        with pytest.raises(PermissionError, match="capset"):
            capabilities.set_exactly(names)
    with pytest.raises(PermissionError, match="prctl"):
        capabilities.drop_bounding(())


@pytest.mark.needs_userns
@pytest.mark.outer
def test_root_keeps_them_over_exec() -> None:
    capabilities.drop_bounding(("CHOWN", "KILL"))
    capabilities.set_exactly(("CHOWN", "KILL"))
    found = _after_exec()
    assert found["Prm"] == found["Eff"] == found["Bnd"] == ("CHOWN", "KILL")
    assert found["Inh"] == found["Amb"] == ()


@pytest.mark.needs_subids
@pytest.mark.outer
def test_another_user_keeps_none() -> None:
    capabilities.drop_bounding(DEFAULT_CAPABILITIES)
    os.setresgid(1000, 1000, 1000)
    os.setresuid(1000, 1000, 1000)
    capabilities.set_exactly(())
    assert _status()["Prm"] == ()
    found = _after_exec()
    assert found["Prm"] == found["Eff"] == found["Inh"] == found["Amb"] == ()
    assert {*found["Bnd"]} == {*DEFAULT_CAPABILITIES}


@pytest.mark.needs_userns
@pytest.mark.outer
def test_inheritable_and_ambient_sets_of_the_caller_are_cleared() -> None:
    every = capabilities.capget().permitted
    capabilities.capset(capabilities.Sets(every, every, every))
    assert capabilities.capget().inheritable == every
    capabilities.set_exactly(("CHOWN",))
    assert capabilities.capget().inheritable == 0


def _after_exec() -> dict[str, tuple[str, ...]]:
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.dup2(writing, 1)
        os.execv("/bin/cat", ["cat", "/proc/self/status"])
    os.close(writing)
    with open(reading) as pipe:
        text = pipe.read()
    os.waitpid(child, 0)
    return _sets(text)
