"""What a process keeps, and gets anew, in a user namespace of its own: ids and keyrings."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = pytest.mark.needs_userns

BODY = """
import ctypes, os
from sandboxd.linux import idmap, keyring
from sandboxd.linux.syscall_numbers import NUMBERS
from sandboxd.linux.syscalls import libc

def add(ring):
    number = NUMBERS[os.uname().machine]["add_key"]
    return libc.syscall(number, b"user", b"mine", b"x", ctypes.c_size_t(1), ring)

idmap.enter_as_oneself()
assert keyring.users_keys() == b""
if add(-4) < 0:
    print("no keyrings here")
    raise SystemExit
assert len(keyring.users_keys()) == 4
keyring.join_new_session()
assert add(-3) > 0
"""

IDS = """
import os
from sandboxd.linux import idmap

before = os.getuid(), os.getgid()
uids, gids = idmap.enter_as_oneself()
assert (os.getuid(), os.getgid()) == before
for text in (uids, gids):
    for line in text.splitlines():
        inside, outside, _ = line.split()
        assert inside == outside
idmap_of_within = idmap.enter_as_oneself(nested=True)
assert (os.getuid(), os.getgid()) == before
assert idmap_of_within == (uids, gids)
"""


@pytest.mark.parametrize("body", [BODY, IDS], ids=["keyrings", "ids"])
def test_in_a_namespace_of_ones_own(body: str) -> None:
    """In a process of its own, which cannot leave the namespace."""
    done = subprocess.run([sys.executable, "-c", body], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    if "no keyrings" in done.stdout:
        pytest.skip("this kernel, or a filter, refuses keyrings")
