"""The loopback interface of a fresh network namespace."""

from __future__ import annotations

import errno
import socket

import pytest

from sandboxd.linux import loopback, namespaces

pytestmark = [pytest.mark.needs_userns, pytest.mark.outer]


def _reach(family: socket.AddressFamily, address: str) -> int:
    with socket.socket(family) as listener, socket.socket(family) as caller:
        listener.bind(("", 0))
        listener.listen()
        return caller.connect_ex((address, listener.getsockname()[1]))


def test_it_is_down_until_it_is_brought_up() -> None:
    namespaces.unshare(namespaces.CLONE_NEWNET)
    assert _reach(socket.AF_INET, "127.0.0.1") == errno.ENETUNREACH
    loopback.bring_up()
    assert _reach(socket.AF_INET, "127.0.0.1") == 0
    if socket.has_ipv6:
        assert _reach(socket.AF_INET6, "::1") == 0


def test_twice_is_as_good_as_once() -> None:
    namespaces.unshare(namespaces.CLONE_NEWNET)
    loopback.bring_up()
    loopback.bring_up()
    assert _reach(socket.AF_INET, "127.0.0.1") == 0


def test_nothing_else_is_reachable() -> None:
    namespaces.unshare(namespaces.CLONE_NEWNET)
    loopback.bring_up()
    with socket.socket() as caller:
        assert caller.connect_ex(("192.0.2.1", 80)) == errno.ENETUNREACH
