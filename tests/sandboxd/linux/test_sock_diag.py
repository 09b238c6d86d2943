"""Listeners that the kernel finds by one look-up."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from sandboxd.linux.sock_diag import ListenerTable


@pytest.fixture
def table() -> Iterator[ListenerTable]:
    made = ListenerTable()
    yield made
    made.close()


@pytest.mark.parametrize(
    ("family", "bound", "asked"),
    [
        (socket.AF_INET, "127.0.0.1", "127.0.0.1"),
        (socket.AF_INET, "0.0.0.0", "127.0.0.1"),
        (socket.AF_INET6, "::1", "::1"),
        (socket.AF_INET6, "::", "::1"),
    ],
)
def test_a_listener_is_found_while_it_listens(
    table: ListenerTable, family: int, bound: str, asked: str
) -> None:
    with socket.create_server((bound, 0), family=family) as server:
        port = server.getsockname()[1]
        assert table.has(family, asked, port)
        with socket.socket(family) as client:
            client.connect((asked, port))
            assert table.has(family, asked, port)
            assert not table.has(family, asked, client.getsockname()[1])
    assert not table.has(family, asked, port)
