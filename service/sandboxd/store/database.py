"""Metadata in SQLite: JSON documents by id, one table for each kind of thing.

One connection, guarded by a lock, so any thread may use it. The journal is a write-ahead log
without a sync for each commit: consistent after a crash, and a container's record may lose its last
change in a power cut, as the container itself does. What names a tree on the disk is committed with
`durable=True`, which syncs.
"""

from __future__ import annotations

import json
import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from sandboxd.errors import HostLacks, NoSpace, SandboxError

Document = dict[str, Any]

_TABLES: Final = (
    "build_cache",
    "compressed",
    "containers",
    "file_digests",
    "images",
    "layers",
    "manifests",
    "snapshots",
    "tags",
    "volumes",
)
_VERSION: Final = 1
_BALLAST_SIZE: Final = 512 * 1024
"""Bytes kept in a file beside the database, given up when the disk is full: room to delete in."""


class Documents:
    """One table: `id` to a JSON object. Changes outside a transaction commit at once."""

    def __init__(self, database: Database, table: str) -> None:
        self._database, self._table = database, table

    def put(self, key: str, document: Document) -> None:
        """Insert or replace."""
        text = json.dumps(document, separators=(",", ":"))
        statement = f"INSERT OR REPLACE INTO {self._table} (id, json) VALUES (?, ?)"
        self._database.execute(statement, (key, text))

    def get(self, key: str) -> Document | None:
        rows = self._database.execute(f"SELECT json FROM {self._table} WHERE id = ?", (key,))
        return self._parsed(rows[0][0]) if rows else None

    def has(self, key: str) -> bool:
        return bool(self._database.execute(f"SELECT 1 FROM {self._table} WHERE id = ?", (key,)))

    def all(self) -> dict[str, Document]:
        """Every document by id, in the order in which they were put."""
        rows = self._database.execute(f"SELECT id, json FROM {self._table} ORDER BY rowid")
        return {key: self._parsed(text) for key, text in rows}

    def delete(self, key: str) -> None:
        """Delete; an id that is not there is no error."""
        self._database.execute(f"DELETE FROM {self._table} WHERE id = ?", (key,))

    def _parsed(self, text: str) -> Document:
        document: Document = json.loads(text)
        return document


class Database:
    """metadata.sqlite of one state root."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._ballast = path.with_name("metadata.ballast")
        self._lock = threading.RLock()
        self._depth = 0
        self._connection = self._opened()
        self.build_cache = Documents(self, "build_cache")
        self.compressed = Documents(self, "compressed")
        self.containers = Documents(self, "containers")
        self.file_digests = Documents(self, "file_digests")
        self.images = Documents(self, "images")
        self.layers = Documents(self, "layers")
        self.manifests = Documents(self, "manifests")
        self.snapshots = Documents(self, "snapshots")
        self.tags = Documents(self, "tags")
        self.volumes = Documents(self, "volumes")
        self._fill_ballast()

    def close(self) -> None:
        with self._lock:
            self._connection.close()

    @contextmanager
    def transaction(self, *, durable: bool = False) -> Iterator[None]:
        """All or nothing; `durable` returns only once it would survive a power cut.

        Nested blocks join the outer one. Raises NoSpace when the disk is full.
        """
        with self._lock:
            if self._depth:
                yield
                return
            self.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
            self.execute("BEGIN IMMEDIATE")
            self._depth = 1
            try:
                yield
                self.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise
            finally:
                self._depth = 0

    @contextmanager
    def releasing(self) -> Iterator[None]:
        """A transaction that frees space: on a full disk it may use the ballast's room."""
        with self._lock:
            if self._ballast_needed():
                self._ballast.unlink(missing_ok=True)
            with self.transaction():
                yield
            self._fill_ballast()

    def execute(self, statement: str, values: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        """Run one statement and fetch its rows; SQLite's errors become SandboxErrors."""
        with self._lock:
            try:
                return self._connection.execute(statement, values).fetchall()
            except sqlite3.Error as error:
                raise _translated(self._path, error) from error

    def _opened(self) -> sqlite3.Connection:
        try:
            connection = sqlite3.connect(
                self._path, timeout=30, isolation_level=None, check_same_thread=False
            )
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            if version > _VERSION:
                why = f"it was written by a newer version (schema {version}, known: {_VERSION})"
                raise HostLacks(f"{self._path}", why, "upgrade pytest-sandbox, or set SANDBOX_ROOT")
            for table in _TABLES:
                columns = "id TEXT PRIMARY KEY, json TEXT NOT NULL"
                connection.execute(f"CREATE TABLE IF NOT EXISTS {table} ({columns})")
            connection.execute(f"PRAGMA user_version = {_VERSION}")
        except sqlite3.Error as error:
            raise _translated(self._path, error) from error
        return connection

    def _ballast_needed(self) -> bool:
        free = os.statvfs(self._path.parent)
        return free.f_bavail * free.f_frsize < _BALLAST_SIZE

    def _fill_ballast(self) -> None:
        """Reserve real blocks (posix_fallocate(3)); on a disk that is full, another time."""
        try:
            fd = os.open(self._ballast, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError:
            return
        try:
            if os.fstat(fd).st_size < _BALLAST_SIZE:
                os.posix_fallocate(fd, 0, _BALLAST_SIZE)
        except OSError:
            os.ftruncate(fd, 0)
        finally:
            os.close(fd)


def _translated(path: Path, error: sqlite3.Error) -> SandboxError:
    code = getattr(error, "sqlite_errorcode", 0)
    if code & 0xFF == sqlite3.SQLITE_FULL:
        return NoSpace(f"{path}", str(error), "sandboxctl volume prune, or free some disk space")
    if code & 0xFF in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
        mend = f"stop the service and move {path} away: images and volumes are then forgotten"
        return SandboxError(f"{path} is damaged", str(error), mend)
    return SandboxError(f"{path}", str(error))
