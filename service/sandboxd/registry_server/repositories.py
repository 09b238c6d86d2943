"""What was pushed: repositories, their tags, manifests and blobs, as rows beside the service's.

A manifest is a blob of the store too. A repository keeps a blob by a root that it holds; the roots
of a repository are its list of blobs. Rows are written under the lock of the digest that they are
about, after the content is on the disk.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Final, NamedTuple

from sandboxd.store import Store
from sandboxd.store.digests import Reader

_SCHEMA: Final = (
    """CREATE TABLE IF NOT EXISTS registry_manifests (
        repository TEXT NOT NULL, digest TEXT NOT NULL, media_type TEXT NOT NULL,
        subject TEXT NOT NULL, descriptor TEXT NOT NULL, blobs TEXT NOT NULL,
        PRIMARY KEY (repository, digest)) WITHOUT ROWID""",
    """CREATE TABLE IF NOT EXISTS registry_tags (
        repository TEXT NOT NULL, tag TEXT NOT NULL, digest TEXT NOT NULL,
        PRIMARY KEY (repository, tag)) WITHOUT ROWID""",
)
_HOLDER: Final = "repository "
_GRACE: Final = 86400.0
"""Seconds for which a blob waits for the manifest that names it."""


class Pushed(NamedTuple):
    """A manifest: its digest and media type; `descriptor` is what an index says about it, `subject`
    the digest of the manifest that it is about or empty, `blobs` the digests that it names."""

    digest: str
    media_type: str
    descriptor: dict[str, Any]
    subject: str = ""
    blobs: tuple[str, ...] = ()


class Repositories:
    def __init__(self, store: Store) -> None:
        self._store, self._database = store, store.database
        self.deletions = 0
        """How often something was deleted: its space may be reclaimed."""
        for statement in _SCHEMA:
            self._database.execute(statement)

    def names(self) -> Sequence[str]:
        """Repositories that hold a manifest or a blob, in the order of their bytes."""
        rows = self._database.execute("SELECT DISTINCT repository FROM registry_manifests")
        held = self._database.execute(
            "SELECT DISTINCT holder FROM roots WHERE holder >= ? AND holder < ?",
            (_HOLDER, f"{_HOLDER}~"),
        )
        names = {name for (name,) in rows}
        return sorted(names | {holder.removeprefix(_HOLDER) for (holder,) in held})

    def exists(self, repository: str) -> bool:
        found = self._database.execute(
            "SELECT 1 FROM registry_manifests WHERE repository = ? UNION ALL "
            "SELECT 1 FROM roots WHERE holder = ? LIMIT 1",
            (repository, _HOLDER + repository),
        )
        return bool(found)

    def tags(self, repository: str) -> Sequence[str]:
        statement = "SELECT tag FROM registry_tags WHERE repository = ?"
        return [tag for (tag,) in self._database.execute(statement, (repository,))]

    def manifest(self, repository: str, which: str) -> Pushed | None:
        """By tag or digest."""
        statement = (
            "SELECT digest, media_type, descriptor, subject, blobs FROM registry_manifests "
            "WHERE repository = ? AND digest = "
        )
        if ":" in which:
            rows = self._database.execute(f"{statement} ?", (repository, which))
        else:
            tagged = "(SELECT digest FROM registry_tags WHERE repository = ? AND tag = ?)"
            rows = self._database.execute(statement + tagged, (repository, repository, which))
        return _pushed(rows[0]) if rows else None

    def referrers(self, repository: str, subject: str) -> Sequence[dict[str, Any]]:
        """The descriptors of the manifests that are about `subject`, by digest."""
        statement = (
            "SELECT descriptor FROM registry_manifests "
            "WHERE repository = ? AND subject = ? ORDER BY digest"
        )
        rows = self._database.execute(statement, (repository, subject))
        return [json.loads(text) for (text,) in rows]

    def put_manifest(
        self, repository: str, pushed: Pushed, content: Reader, tags: Iterable[str]
    ) -> None:
        """Store a manifest under its digest and the tags, which leave what had them."""
        with self._store.lock(pushed.digest):
            self._store.blobs.put(content, digest=pushed.digest)
            with self._database.transaction(durable=True):
                self._store.roots.add(pushed.digest, _HOLDER + repository)
                self._database.execute(
                    "INSERT OR REPLACE INTO registry_manifests "
                    "(repository, digest, media_type, descriptor, subject, blobs) "
                    "VALUES (?, ?, ?, ?, ?, ?)",
                    (
                        repository,
                        pushed.digest,
                        pushed.media_type,
                        json.dumps(pushed.descriptor),
                        pushed.subject,
                        json.dumps(pushed.blobs),
                    ),
                )
                for tag in tags:
                    self._database.execute(
                        "INSERT OR REPLACE INTO registry_tags (repository, tag, digest) "
                        "VALUES (?, ?, ?)",
                        (repository, tag, pushed.digest),
                    )

    def delete_tag(self, repository: str, tag: str) -> bool:
        """Whether there was such a tag; the manifest stays."""
        with self._database.releasing():
            if tag not in self.tags(repository):
                return False
            self._database.execute(
                "DELETE FROM registry_tags WHERE repository = ? AND tag = ?", (repository, tag)
            )
        return True

    def delete_manifest(self, repository: str, digest: str) -> bool:
        """Whether it was there. Its tags go, and the blobs that no other manifest here names."""
        found = self.manifest(repository, digest)
        if found is None:
            return False
        with self._database.releasing():
            for table in ("registry_tags", "registry_manifests"):
                self._database.execute(
                    f"DELETE FROM {table} WHERE repository = ? AND digest = ?", (repository, digest)
                )
            self.deletions += 1
            gone = {digest, *found.blobs} - self._named(repository)
            for blob in gone:
                self._store.roots.remove(blob, _HOLDER + repository)
        return True

    def has_blob(self, repository: str, digest: str) -> bool:
        return self._store.roots.has(digest, _HOLDER + repository)

    def keeping(self, digest: str) -> AbstractContextManager[None]:
        """Hold this around finding a blob and linking it: it is not collected in between."""
        return self._store.lock(digest)

    def link(self, repository: str, digest: str) -> None:
        """Keep a blob that is there for a repository."""
        with self._database.transaction(durable=True):
            self._store.roots.add(digest, _HOLDER + repository)

    def adopt(self, repository: str, staged: Path, digest: str) -> None:
        """Make a finished upload a blob of the repository. Raises NoSpace."""
        with self._store.lock(digest):
            self._store.blobs.adopt(staged, digest)
            self.link(repository, digest)

    def delete_blob(self, repository: str, digest: str) -> bool:
        """Whether the repository had it."""
        if not self.has_blob(repository, digest):
            return False
        with self._database.releasing():
            self._store.roots.remove(digest, _HOLDER + repository)
        self.deletions += 1
        return True

    def forget_unnamed(self, grace: float = _GRACE) -> int:
        """Give up blobs that no manifest has named for `grace` seconds; how many."""
        count, latest = 0, time.time() - grace
        for repository in self.names():
            held = self._store.roots.of(_HOLDER + repository)
            named = self._named(repository)
            for digest, since in held.items():
                if since <= latest and digest not in named:
                    self._store.roots.remove(digest, _HOLDER + repository)
                    count += 1
        self.deletions += bool(count)
        return count

    def _named(self, repository: str) -> set[str]:
        """The digests of a repository's manifests and of all that they name."""
        statement = "SELECT digest, blobs FROM registry_manifests WHERE repository = ?"
        rows = self._database.execute(statement, (repository,))
        return {name for digest, blobs in rows for name in (digest, *json.loads(blobs))}


def _pushed(row: tuple[Any, ...]) -> Pushed:
    digest, media_type, descriptor, subject, blobs = row
    return Pushed(digest, media_type, json.loads(descriptor), subject, tuple(json.loads(blobs)))
