"""Blobs that are kept for a holder's sake, such as a registry's repositories: (digest, holder).

They are rows and no pins, since the holder may be another process than the one that collects.
Whoever adds a root holds the digest's lock from before the blob is written until the row is there;
the collector, which holds the same lock when it deletes, looks once more.
"""

from __future__ import annotations

import time
from typing import Final

from sandboxd.store.database import Database

_SCHEMA: Final = """CREATE TABLE IF NOT EXISTS roots (
    digest TEXT NOT NULL, holder TEXT NOT NULL, since REAL NOT NULL, PRIMARY KEY (holder, digest)
) WITHOUT ROWID"""
_INDEX: Final = "CREATE INDEX IF NOT EXISTS roots_by_digest ON roots (digest)"


class Roots:
    def __init__(self, database: Database) -> None:
        self._database = database
        database.execute(_SCHEMA)
        database.execute(_INDEX)

    def add(self, digest: str, holder: str) -> None:
        """From now on the holder keeps the blob; once more is no error and starts its time anew."""
        statement = "INSERT OR REPLACE INTO roots (digest, holder, since) VALUES (?, ?, ?)"
        self._database.execute(statement, (digest, holder, time.time()))

    def remove(self, digest: str, holder: str) -> None:
        """The holder keeps it no longer; one that it did not keep is no error."""
        self._database.execute(
            "DELETE FROM roots WHERE digest = ? AND holder = ?", (digest, holder)
        )

    def has(self, digest: str, holder: str) -> bool:
        """Whether this holder keeps the blob."""
        statement = "SELECT 1 FROM roots WHERE digest = ? AND holder = ?"
        return bool(self._database.execute(statement, (digest, holder)))

    def keeps(self, digest: str) -> bool:
        """Whether anybody keeps the blob."""
        return bool(self._database.execute("SELECT 1 FROM roots WHERE digest = ?", (digest,)))

    def of(self, holder: str) -> dict[str, float]:
        """What a holder keeps: digest to seconds since 1970."""
        statement = "SELECT digest, since FROM roots WHERE holder = ?"
        return dict(self._database.execute(statement, (holder,)))

    def all(self) -> frozenset[str]:
        """Every digest that somebody keeps."""
        return frozenset(digest for (digest,) in self._database.execute("SELECT digest FROM roots"))
