"""Documents survive a crash; a transaction is all or nothing; damage is told, not hidden."""

from __future__ import annotations

import os
import sqlite3
import threading
from pathlib import Path

import pytest

from sandboxd.errors import HostLacks, SandboxError
from sandboxd.store import Database


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "metadata.sqlite"


def test_documents_are_replaced_and_keep_their_order(path: Path) -> None:
    database = Database(path)
    database.containers.put("b", {"n": 1})
    database.containers.put("a", {"n": 2})
    database.containers.put("c", {"n": [None, "ü"]})
    assert list(database.containers.all()) == ["b", "a", "c"]
    assert database.containers.get("c") == {"n": [None, "ü"]}
    assert database.containers.get("d") is None
    database.containers.delete("b")
    database.containers.delete("b")
    assert list(database.containers.all()) == ["a", "c"]
    assert database.images.all() == {}


def test_a_failed_transaction_changes_nothing(path: Path) -> None:
    database = Database(path)
    database.tags.put("kept", {})

    def fail() -> None:
        with database.transaction(durable=True):
            database.tags.put("new", {})
            with database.transaction():
                database.tags.delete("kept")
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert list(database.tags.all()) == ["kept"]


def test_a_killed_process_leaves_what_it_had_committed(path: Path) -> None:
    child = os.fork()
    if child == 0:
        database = Database(path)
        with database.transaction():
            database.volumes.put("committed", {"n": 1})
        database.execute("BEGIN IMMEDIATE")
        database.volumes.put("open", {"n": 2})
        os.kill(os.getpid(), 9)
    os.waitpid(child, 0)
    assert Database(path).volumes.all() == {"committed": {"n": 1}}


def test_threads_may_share_it(path: Path) -> None:
    database = Database(path)

    def put(number: int) -> None:
        for turn in range(50):
            with database.transaction():
                database.containers.put(f"{number}-{turn}", {"n": turn})

    threads = [threading.Thread(target=put, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(database.containers.all()) == 200


def test_a_damaged_file_is_named_with_what_to_do(path: Path) -> None:
    path.write_bytes(b"not a database" * 1000)
    with pytest.raises(SandboxError, match=r"metadata\.sqlite is damaged.*move"):
        Database(path)


def test_a_newer_schema_is_refused(path: Path) -> None:
    Database(path).close()
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(HostLacks, match="newer version"):
        Database(path)
